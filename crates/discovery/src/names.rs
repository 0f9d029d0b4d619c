//! Names that go into kernel comments, files and terminals, checked once.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use thiserror::Error;

/// The longest name that still fits an nft element's comment with room to spare.
///
/// libnftnl keeps user data in at most 256 bytes (`NFT_USERDATA_MAXLEN`); nft itself refuses comments over 128.
pub const MAX_NAME: usize = 120;

/// A node's name, the same through replacement, failover and reboot: `my-cluster-001`, `sessions-0001`, `my-cluster/reader`.
///
/// 1 to 120 printable ASCII characters without spaces, quotes and backslashes, so that it can stand in an nft comment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "SmolStr", into = "SmolStr")]
pub struct NodeId(SmolStr);

/// A source's name, `kind/name`: `replication_group/my-cluster`, `tags/Environment=dev,Team=web`, `static/local`.
///
/// Printable, not empty, and with a kind before the first slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "SmolStr", into = "SmolStr")]
pub struct SourceName(SmolStr);

/// Why a text is no [`NodeId`] or [`SourceName`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing between the quotes.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`MAX_NAME`] bytes.
    #[error("{0} bytes are too long for a name: at most {MAX_NAME} fit the comment of an nft element")]
    TooLong(usize),
    /// A character that an nft comment, a terminal or a table cannot carry.
    #[error("{character:?} cannot stand in a name: use letters, digits and -_./:=,")]
    Character {
        /// The first such character.
        character: char,
    },
    /// A source without its kind.
    #[error("{0:?} is not of the form kind/name, such as replication_group/my-cluster")]
    NoKind(String),
}

impl NodeId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(text: &str) -> Result<(), NameError> {
        match text.len() {
            0 => return Err(NameError::Empty),
            length if length > MAX_NAME => return Err(NameError::TooLong(length)),
            _ => {}
        }
        match text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '\'' | '`' | '\\')) {
            Some(character) => Err(NameError::Character { character }),
            None => Ok(()),
        }
    }
}

impl SourceName {
    /// `kind/name`, with every character that a terminal would act on replaced.
    ///
    /// For names that come from a parsed [`Source`](crate::Source), where there is nothing left to refuse.
    pub(crate) fn new(kind: &str, name: &str) -> Self {
        Self(crate::text::plain(&format!("{kind}/{name}")).into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands after the kind: `my-cluster` of `replication_group/my-cluster`.
    pub fn short(&self) -> &str {
        self.0.split_once('/').map_or(self.as_str(), |(_, name)| name)
    }

    /// Whether a cache names the nodes itself.
    pub(crate) fn is_in_band(&self) -> bool {
        self.0.starts_with("in_band/")
    }

    fn check(text: &str) -> Result<(), NameError> {
        if let Some(character) = text.chars().find(|c| crate::text::is_unprintable(*c)) {
            return Err(NameError::Character { character });
        }
        match text.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(()),
            _ if text.is_empty() => Err(NameError::Empty),
            _ => Err(NameError::NoKind(text.to_owned())),
        }
    }
}

macro_rules! text_conversions {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                SmolStr::new(text).try_into()
            }
        }

        impl From<$name> for SmolStr {
            fn from(name: $name) -> SmolStr {
                name.0
            }
        }

        impl TryFrom<SmolStr> for $name {
            type Error = NameError;

            fn try_from(text: SmolStr) -> Result<Self, NameError> {
                Self::check(&text)?;
                Ok(Self(text))
            }
        }
    )*};
}

text_conversions!(NodeId, SourceName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_contract_are_node_ids() {
        for name in
            ["my-cluster-001", "sessions-0001", "my-cluster/primary", "carts/reader", "lab-10.0.1.230:6379"]
        {
            assert_eq!(name.parse::<NodeId>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_node_id_never_breaks_out_of_an_nft_comment() {
        for name in ["a\" }", "a b", "a\\", "a\n", "a\u{1b}[2J", "é", "a'", "\u{7f}"] {
            assert!(matches!(name.parse::<NodeId>(), Err(NameError::Character { .. })), "{name:?}");
        }
        assert_eq!("".parse::<NodeId>(), Err(NameError::Empty));
        assert_eq!("x".repeat(121).parse::<NodeId>(), Err(NameError::TooLong(121)));
        assert!("x".repeat(120).parse::<NodeId>().is_ok());
    }

    #[test]
    fn a_source_name_has_a_kind_and_may_hold_what_tags_hold() {
        assert_eq!("tags/Cost Center=a b".parse::<SourceName>().unwrap().short(), "Cost Center=a b");
        for name in ["", "static", "/local", "static/", "static/\u{1b}[2J"] {
            assert!(name.parse::<SourceName>().is_err(), "{name:?}");
        }
    }
}
