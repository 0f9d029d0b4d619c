//! Userdata that nft stores in the kernel: type, length, value, without padding (libnftnl `include/libnftnl/udata.h`).
//!
//! It does not affect packets; `nft list` uses it to show comments and `typeof`.

use std::borrow::Cow;

use rules::ruleset::{Set, SetKind};

/// `NFTNL_UDATA_TABLE_COMMENT` and `NFTNL_UDATA_SET_ELEM_COMMENT`.
const COMMENT: u8 = 0;

/// `NFTNL_UDATA_SET_ELEM_FLAGS` with `NFTNL_SET_ELEM_F_INTERVAL_OPEN`: this start has no end element.
const ELEMENT_FLAGS: u8 = 1;
const INTERVAL_OPEN: u32 = 1;

/// Serializes userdata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Buffer(Vec<u8>);

impl Buffer {
    fn put(mut self, kind: u8, value: &[u8]) -> Self {
        let length = u8::try_from(value.len()).expect("ids, comments and type descriptions are shorter");
        self.0.extend_from_slice(&[kind, length]);
        self.0.extend_from_slice(value);
        self
    }

    /// Numbers are in host byte order.
    fn number(self, kind: u8, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    fn nest(self, kind: u8, inner: Self) -> Self {
        self.put(kind, &inner.0)
    }
}

/// The userdata of a table with this comment.
pub(super) fn table(comment: &str) -> Vec<u8> {
    with_comment(comment).0
}

/// The userdata of an element; empty for most.
pub(super) fn element(comment: Option<&str>, open_interval: bool) -> Vec<u8> {
    let buffer = comment.map_or_else(Buffer::default, with_comment);
    if open_interval { buffer.number(ELEMENT_FLAGS, INTERVAL_OPEN).0 } else { buffer.0 }
}

fn with_comment(comment: &str) -> Buffer {
    Buffer::default().put(COMMENT, &[comment.as_bytes(), &[0]].concat())
}

/// The comment in the userdata of a table or an element; invalid UTF-8 is replaced.
pub(super) fn comment(userdata: &[u8]) -> Option<Cow<'_, str>> {
    let mut rest = userdata;
    while let &[kind, length, ref tail @ ..] = rest {
        let (value, after) = tail.split_at_checked(usize::from(length))?;
        if kind == COMMENT {
            return Some(String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)));
        }
        rest = after;
    }
    None
}

/// `enum nftnl_udata_set_types` and `NFTNL_UDATA_SET_TYPEOF_*`
mod set_field {
    pub(super) const KEY_BYTEORDER: u8 = 0;
    pub(super) const DATA_BYTEORDER: u8 = 1;
    pub(super) const KEY_TYPEOF: u8 = 3;
    pub(super) const DATA_TYPEOF: u8 = 4;
    pub(super) const DATA_INTERVAL: u8 = 6;
    pub(super) const TYPEOF_EXPR: u8 = 0;
    pub(super) const TYPEOF_DATA: u8 = 1;
}

/// `BYTEORDER_INVALID`, of a concatenation, and `BYTEORDER_BIG_ENDIAN` (nftables `include/datatype.h`).
const MIXED: u32 = 0;
const BIG_ENDIAN: u32 = 2;

/// `EXPR_CONCAT` (nftables `include/expression.h`).
const CONCATENATION: u32 = 13;

/// How nft lists the set: its byte order, and `type` instead of `typeof` for its fields.
pub(super) fn set(set: Set) -> Vec<u8> {
    let no_typeof = || {
        Buffer::default()
            .number(set_field::TYPEOF_EXPR, CONCATENATION)
            .nest(set_field::TYPEOF_DATA, Buffer::default())
    };
    let order = |order| Buffer::default().number(set_field::KEY_BYTEORDER, order);
    let buffer = match set.kind {
        SetKind::Clients(_) => order(BIG_ENDIAN),
        SetKind::Routed(_) | SetKind::Backends | SetKind::Listeners => {
            order(MIXED).nest(set_field::KEY_TYPEOF, no_typeof())
        }
        SetKind::Forward(_) | SetKind::Spread(..) => order(MIXED)
            .number(set_field::DATA_BYTEORDER, MIXED)
            .nest(set_field::KEY_TYPEOF, no_typeof())
            .nest(set_field::DATA_TYPEOF, no_typeof())
            .number(set_field::DATA_INTERVAL, 0),
    };
    buffer.0
}
