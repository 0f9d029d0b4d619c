//! Netlink messages: `struct nlmsghdr` (16 bytes), followed by `struct nfgenmsg` (4 bytes) for netfilter's subsystems.

use std::io;

use nix::libc;
use rules::ruleset::TABLE;
use tracing::trace;

use super::attribute::{Fields, Malformed, Writer, aligned};
use super::uapi::error;

/// `sizeof(struct nlmsghdr)`
pub(super) const HEADER: usize = 16;

/// The length of a batch's BEGIN and END, and of any netfilter message without attributes.
pub(super) const BATCH: usize = 20;

/// The family of our table.
pub(super) const INET: u8 = libc::NFPROTO_INET as u8;

/// `NLM_F_ACK_TLVS` and `NLM_F_CAPPED` on an answer.
const ACK_TLVS: u16 = 0x200;
const CAPPED: u16 = 0x100;

/// A received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// The netlink port of the socket that sent the request.
    pub(super) port: u32,
    pub(super) body: &'a [u8],
}

/// An iterator over the messages in a datagram; ends after the first malformed one.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let Some(header) = rest.first_chunk::<HEADER>() else {
            return Some(Err(Malformed("a message's header is cut off")));
        };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(body) = rest.get(HEADER..length) else {
            return Some(Err(Malformed("a message's length is wrong")));
        };
        self.0 = rest.get(aligned(length)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            body,
        }))
    }
}

/// A decoded message from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// An object of nf_tables or conntrack: the subsystem's message type, the object's family, the low 16 bits of
    /// nf_tables' generation, and the attributes.
    Object { kind: u8, family: u8, generation: u16, attributes: &'a [u8] },
    /// The end of a dump, with an errno if it was aborted, or 0.
    Done(i32),
    /// The kernel's result for one sent message: an errno or 0, and the offset of the error in that message.
    Verdict { errno: i32, offset: Option<u32> },
    /// Any other message.
    Other,
}

impl<'a> Message<'a> {
    pub(super) fn answer(&self) -> Result<Answer<'a>, Malformed> {
        match i32::from(self.kind) {
            libc::NLMSG_ERROR => self.verdict(),
            // The body has the negated errno of the dump; older kernels send none on success.
            libc::NLMSG_DONE => Ok(Answer::Done(self.errno().unwrap_or(0))),
            kind if [libc::NFNL_SUBSYS_NFTABLES, libc::NFNL_SUBSYS_CTNETLINK].contains(&(kind >> 8)) => {
                let truncated = Malformed("a netfilter message has no header");
                let &[family, _version, res0, res1] = self.body.first_chunk().ok_or(truncated)?;
                let attributes = self.body.get(4..).unwrap_or_default();
                let [_, kind] = self.kind.to_be_bytes();
                Ok(Answer::Object { kind, family, generation: u16::from_be_bytes([res0, res1]), attributes })
            }
            _ => Ok(Answer::Other),
        }
    }

    fn errno(&self) -> Option<i32> {
        self.body.first_chunk().map(|&bytes| i32::from_ne_bytes(bytes).saturating_neg())
    }

    /// `struct nlmsgerr`: the errno, the original message (only its header if capped), then attributes.
    fn verdict(&self) -> Result<Answer<'a>, Malformed> {
        let errno = self.errno().ok_or(Malformed("an error without an errno"))?;
        trace!("netlink port {}: message {}: errno {errno}", self.port, self.sequence);
        let about = self.body.get(4..).unwrap_or_default();
        let length = match about.first_chunk() {
            Some(&bytes) if self.flags & CAPPED == 0 => aligned(u32::from_ne_bytes(bytes) as usize),
            _ => HEADER,
        };
        let mut offset = None;
        if self.flags & ACK_TLVS != 0 {
            let fields = Fields::<4>::parse(about.get(length..).unwrap_or_default())?;
            offset = fields.get(error::OFFSET).and_then(|o| o.try_into().ok()).map(u32::from_ne_bytes);
        }
        Ok(Answer::Verdict { errno, offset })
    }
}

/// Builds a message about an object in `inet cachenat`; `fill` writes its attributes.
pub(super) fn build(kind: u8, flags: i32, sequence: u32, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    build_for(libc::NFNL_SUBSYS_NFTABLES, INET, kind, flags, sequence, fill)
}

/// Builds a message to a netfilter subsystem (`NFNL_SUBSYS_*`).
pub(super) fn build_for(
    subsystem: i32,
    family: u8,
    kind: u8,
    flags: i32,
    sequence: u32,
    fill: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    build_raw(u16::from_be_bytes([subsystem as u8, kind]), flags, sequence, |writer| {
        // The version and the resource id are 0.
        writer.0.extend_from_slice(&[family, 0, 0, 0]);
        fill(writer);
    })
}

/// Builds a message of any netlink family; `fill` writes everything after the header.
pub(super) fn build_raw(kind: u16, flags: i32, sequence: u32, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    let flags = (flags | libc::NLM_F_REQUEST) as u16;
    writer.0.extend_from_slice(&[0; 4]);
    writer.0.extend_from_slice(&kind.to_ne_bytes());
    writer.0.extend_from_slice(&flags.to_ne_bytes());
    writer.0.extend_from_slice(&sequence.to_ne_bytes());
    writer.0.extend_from_slice(&[0; 4]);
    fill(&mut writer);
    let length = u32::try_from(writer.0.len()).expect("a message is at most a few attributes of 64 KiB");
    if let Some(slot) = writer.0.first_chunk_mut() {
        *slot = length.to_ne_bytes();
    }
    writer.0
}

/// Like [`build`], with the table's name as the first attribute, which has type 1 for every kind of object.
pub(super) fn build_in_table(kind: u8, flags: i32, sequence: u32, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    build(kind, flags, sequence, |writer| {
        writer.name(super::uapi::table::NAME, TABLE);
        fill(writer);
    })
}

pub(super) fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
