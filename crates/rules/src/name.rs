//! Names that come from outside and end up inside the ruleset.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Why a text is no valid name; it says what the name must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("the name is empty")]
    Empty,
    /// The text has more than `limit` bytes.
    #[error("{name:?} has {} bytes, at most {limit} are allowed", name.len())]
    TooLong {
        /// The text as it was given.
        name: String,
        /// The largest number of bytes.
        limit: usize,
    },
    /// A character that nft, a shell or a terminal would take for something else.
    #[error("{name:?} holds {character:?}, which is not allowed there")]
    Character {
        /// The text as it was given.
        name: String,
        /// The first character that is refused.
        character: char,
    },
}

fn check(name: &str, limit: usize, allowed: impl Fn(char) -> bool) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > limit {
        return Err(NameError::TooLong { name: name.to_owned(), limit });
    }
    match name.chars().find(|&character| !allowed(character)) {
        Some(character) => Err(NameError::Character { name: name.to_owned(), character }),
        None => Ok(()),
    }
}

/// What a forward leads to: a cache node (`my-cluster-001`), a role (`my-cluster/primary`) or a serverless cache.
///
/// It is the comment of the forward's map element, so it holds 1 to [`ForwardId::MAX`] bytes of printable ASCII
/// without blanks, quotes and backslashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "SmolStr", into = "SmolStr")]
pub struct ForwardId(SmolStr);

impl ForwardId {
    /// The most bytes of an id; the kernel's userdata would take 128 with the closing NUL
    /// (`NFTNL_UDATA_COMMENT_MAXLEN`, libnftnl `include/libnftnl/udata.h`).
    pub const MAX: usize = 120;

    /// Whether the text is an id.
    pub fn is_valid(name: &str) -> bool {
        check(name, Self::MAX, Self::may_hold).is_ok()
    }

    const fn may_hold(character: char) -> bool {
        character.is_ascii_graphic() && !matches!(character, '"' | '\\')
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as the comment of an element.
    pub fn comment(&self) -> SmolStr {
        self.0.clone()
    }
}

impl FromStr for ForwardId {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        SmolStr::new(name).try_into()
    }
}

impl TryFrom<SmolStr> for ForwardId {
    type Error = NameError;

    fn try_from(name: SmolStr) -> Result<Self, NameError> {
        check(&name, Self::MAX, Self::may_hold)?;
        Ok(Self(name))
    }
}

impl From<ForwardId> for SmolStr {
    fn from(name: ForwardId) -> Self {
        name.0
    }
}

impl fmt::Display for ForwardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a network interface, such as `eth0`.
///
/// At most 15 bytes (`IFNAMSIZ` less the NUL, `linux/if.h`). A `*` is refused although the kernel would take it:
/// nft reads a trailing one as a wildcard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "SmolStr", into = "SmolStr")]
pub struct IfName(SmolStr);

impl IfName {
    /// The most bytes of a name.
    pub const MAX: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        SmolStr::new(name).try_into()
    }
}

impl TryFrom<SmolStr> for IfName {
    type Error = NameError;

    fn try_from(name: SmolStr) -> Result<Self, NameError> {
        check(&name, Self::MAX, |c| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '/' | '*'))?;
        // `dev_valid_name`, net/core/dev.c: below /proc/sys they would be other directories.
        if matches!(name.as_str(), "." | "..") {
            return Err(NameError::Character { name: name.into(), character: '.' });
        }
        Ok(Self(name))
    }
}

impl From<IfName> for SmolStr {
    fn from(name: IfName) -> Self {
        name.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_break_out_of_an_nft_comment_is_refused() {
        for bad in ["", "a b", "a\"b", "a\\b", "a\u{1b}[31m", "é", &"x".repeat(121)] {
            assert!(bad.parse::<ForwardId>().is_err(), "{bad:?}");
        }
        assert_eq!("my-cluster/primary".parse::<ForwardId>().unwrap().as_str(), "my-cluster/primary");
    }

    #[test]
    fn an_interface_name_is_one_that_the_kernel_and_nft_both_take_literally() {
        for bad in ["", "eth*", "a/b", "sixteen-bytes-xx", "eth 0"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
        assert!("eth0.100@x".parse::<IfName>().is_ok());
    }
}
