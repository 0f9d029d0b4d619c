//! Netlink attributes: type, length, value, padded to 4 bytes (`struct nlattr`, `linux/netlink.h`).

/// `NLA_F_NESTED`: the value consists of attributes.
const NESTED: u16 = 0x8000;

/// `NLA_TYPE_MASK`: the type without its two flags.
const TYPE: u16 = 0x3fff;

const HEADER: usize = 4;

/// A violation of the netlink protocol, described by the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    /// Its type, without the flags.
    pub(super) kind: u16,
    /// Its value, without the padding.
    pub(super) value: &'a [u8],
}

/// An iterator over attributes; ends after the first malformed one.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let Some(&[len0, len1, kind0, kind1]) = rest.first_chunk::<HEADER>() else {
            return Some(Err(Malformed("an attribute's header is cut off")));
        };
        let length = usize::from(u16::from_ne_bytes([len0, len1]));
        let Some(value) = rest.get(HEADER..length) else {
            return Some(Err(Malformed("an attribute's length is wrong")));
        };
        self.0 = rest.get(aligned(length)..).unwrap_or_default();
        Some(Ok(Attribute { kind: u16::from_ne_bytes([kind0, kind1]) & TYPE, value }))
    }
}

/// The attributes of one object by type, for types below `N`; the last of several with the same type counts.
pub(super) struct Fields<'a, const N: usize> {
    values: [Option<&'a [u8]>; N],
    /// Whether there are attributes of type `N` or above.
    pub(super) others: bool,
}

impl<'a, const N: usize> Fields<'a, N> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Self { values: [None; N], others: false };
        for attribute in Attributes(bytes) {
            let Attribute { kind, value } = attribute?;
            match fields.values.get_mut(usize::from(kind)) {
                Some(slot) => *slot = Some(value),
                None => fields.others = true,
            }
        }
        Ok(fields)
    }

    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.values.get(usize::from(kind)).copied().flatten()
    }

    pub(super) fn be32(&self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn be64(&self, kind: u16) -> Option<u64> {
        self.get(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// A string without its NUL; empty if the attribute is missing.
    pub(super) fn name(&self, kind: u16) -> &'a [u8] {
        let bytes = self.get(kind).unwrap_or_default();
        bytes.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Whether all attributes are of these types.
    pub(super) fn only(&self, kinds: &[u16]) -> bool {
        let known = |at: usize| kinds.iter().any(|&kind| usize::from(kind) == at);
        !self.others && self.values.iter().enumerate().all(|(at, value)| value.is_none() || known(at))
    }
}

/// A name from the kernel, with control characters escaped.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

/// Serializes attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        self.open(kind, |writer| writer.0.extend_from_slice(value));
    }

    pub(super) fn be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Writes a string and its NUL.
    pub(super) fn name(&mut self, kind: u16, name: &str) {
        self.open(kind, |writer| {
            writer.0.extend_from_slice(name.as_bytes());
            writer.0.push(0);
        });
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.open(kind | NESTED, fill);
    }

    fn open(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).expect("the encoder bounds what it nests");
        if let Some(slot) = self.0.get_mut(start..start + 2) {
            slot.copy_from_slice(&length.to_ne_bytes());
        }
        self.0.resize(aligned(self.0.len()), 0);
    }
}

/// `NLA_ALIGN`, which equals `NLMSG_ALIGN`.
pub(super) const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn written_attributes_read_back() {
        let mut writer = Writer::default();
        writer.name(1, "cachenat");
        writer.be32(2, 7);
        writer.nest(3, |inner| inner.put(1, &[1, 2, 3]));
        let fields = Fields::<4>::parse(&writer.0).unwrap();
        assert_eq!((fields.name(1), fields.be32(2)), (&b"cachenat"[..], Some(7)));
        let inner = Fields::<2>::parse(fields.get(3).unwrap()).unwrap();
        assert_eq!(inner.get(1), Some(&[1, 2, 3][..]));
        assert!(fields.only(&[1, 2, 3]) && !fields.only(&[1, 2]));
    }

    #[test]
    fn an_out_of_range_length_is_malformed() {
        for bytes in [&[4][..], &[3, 0, 1, 0], &[0, 0, 1, 0], &[8, 0, 1, 0, 1, 2, 3], &[255, 255, 1, 0]] {
            assert!(Fields::<4>::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_terminate_without_panic(bytes: Vec<u8>) {
            prop_assert!(Attributes(&bytes).count() <= bytes.len());
        }
    }
}
