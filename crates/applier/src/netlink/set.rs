//! Declares sets and maps to the kernel, and compares the kernel's declarations with ours.

use nix::libc;
use rules::Family;
use rules::ruleset::{Set, SetKind};

use super::attribute::{Fields, Malformed, Writer};
use super::uapi::{expr, set as attr};
use super::userdata;

/// nft's data types (nftables `include/datatype.h`); the kernel only stores them.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_SERVICE: u32 = 13;

/// The type of a set's key or data.
struct DataType {
    /// nft's data type; a concatenation has 6 bits for each field.
    number: u32,
    /// The length in bytes of each field, without padding.
    fields: Vec<u32>,
}

impl DataType {
    fn of(fields: &[(u32, u32)]) -> Self {
        let number = fields.iter().fold(0, |number, (field, _)| number << 6 | field);
        Self { number, fields: fields.iter().map(|&(_, length)| length).collect() }
    }

    /// Each field is padded to a 4-byte register.
    fn length(&self) -> u32 {
        self.fields.iter().map(|length| length.next_multiple_of(4)).sum()
    }
}

/// The kernel's declaration of a set.
struct Declaration {
    flags: u32,
    key: DataType,
    data: Option<DataType>,
}

impl Declaration {
    fn of(set: Set) -> Self {
        let address = match set.family {
            Family::Ipv4 => (IPV4_ADDR, 4),
            Family::Ipv6 => (IPV6_ADDR, 16),
        };
        let port = (INET_SERVICE, 2);
        let (flags, key) = match set.kind {
            SetKind::Clients(_) => (libc::NFT_SET_INTERVAL as u32, DataType::of(&[address])),
            SetKind::Routed(_) | SetKind::Backends | SetKind::Listeners => {
                (0, DataType::of(&[address, port]))
            }
            SetKind::Forward(_) | SetKind::Spread(..) => {
                (libc::NFT_SET_MAP as u32, DataType::of(&[address, port]))
            }
        };
        let data = set.is_map().then(|| DataType::of(&[address, port]));
        Self { flags, key, data }
    }
}

/// Writes the attributes that declare `set`, in nft's order, after the table's name.
pub(super) fn declare(set: Set, writer: &mut Writer) {
    let declaration = Declaration::of(set);
    writer.name(attr::NAME, &set.name());
    writer.be32(attr::FLAGS, declaration.flags);
    writer.be32(attr::KEY_TYPE, declaration.key.number);
    writer.be32(attr::KEY_LEN, declaration.key.length());
    if let Some(data) = &declaration.data {
        writer.be32(attr::DATA_TYPE, data.number);
        writer.be32(attr::DATA_LEN, data.length());
    }
    writer.be32(attr::ID, id(set));
    writer.put(attr::USERDATA, &userdata::set(set));
    if set.is_map() {
        writer.nest(attr::EXPR, |writer| {
            writer.name(expr::NAME, "counter");
            writer.nest(expr::DATA, |_| {});
        });
    }
}

/// The number of a new set within a batch; the kernel wants one, and we always use names.
fn id(set: Set) -> u32 {
    let place = Set::all().position(|other| other == set).unwrap_or_default();
    u32::try_from(place).unwrap_or_default() + 1
}

/// Whether the kernel's set has the same declaration as ours.
///
/// Ignores userdata, which affects only the output of `nft list` and differs between versions of nft.
pub(super) fn is_declared(set: Set, fields: &Fields<'_, 24>) -> Result<bool, Malformed> {
    let declaration = Declaration::of(set);
    let number = |kind| fields.be32(kind).unwrap_or(0);
    let data = declaration.data.as_ref().map_or((0, 0), |data| (data.number, data.length()));
    let same_type = number(attr::FLAGS) == declaration.flags
        && (number(attr::KEY_TYPE), number(attr::KEY_LEN))
            == (declaration.key.number, declaration.key.length())
        && (number(attr::DATA_TYPE), number(attr::DATA_LEN)) == data;
    let unwanted = [attr::TIMEOUT, attr::GC_INTERVAL, attr::OBJ_TYPE, attr::EXPRESSIONS];
    let plain = number(attr::POLICY) == 0 && unwanted.into_iter().all(|kind| fields.get(kind).is_none());
    Ok(same_type && plain && counts(fields)? == set.is_map() && is_undescribed(fields)?)
}

fn counts(fields: &Fields<'_, 24>) -> Result<bool, Malformed> {
    let Some(expression) = fields.get(attr::EXPR) else { return Ok(false) };
    Ok(Fields::<3>::parse(expression)?.name(expr::NAME) == b"counter")
}

/// Whether the set has no size limit, and no ranges in the fields of a concatenation.
fn is_undescribed(fields: &Fields<'_, 24>) -> Result<bool, Malformed> {
    let description = Fields::<3>::parse(fields.get(attr::DESC).unwrap_or_default())?;
    let has_fields = description.get(attr::DESC_CONCAT).is_some_and(|fields| !fields.is_empty());
    Ok(description.be32(attr::DESC_SIZE).unwrap_or(0) == 0 && !has_fields)
}
