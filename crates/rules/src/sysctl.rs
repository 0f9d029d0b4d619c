//! The kernel settings that forwarding needs, as data.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use crate::ruleset::{Family, Ruleset, SetKind};

/// A kernel setting, and the value that forwarding needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Sysctl {
    /// `net.ipv4.ip_forward = 1`
    #[serde(rename = "net.ipv4.ip_forward")]
    Ipv4Forward,
    /// `net.ipv6.conf.all.forwarding = 1`; the host then ignores router advertisements
    /// (`Documentation/networking/ip-sysctl.rst`).
    #[serde(rename = "net.ipv6.conf.all.forwarding")]
    Ipv6Forward,
}

/// The value of a kernel setting that is a switch: no other text is ever written to the kernel or into a drop-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Switch {
    /// `0`
    #[serde(rename = "0")]
    Off,
    /// `1`; the kernel takes every other number for it.
    #[serde(rename = "1")]
    On,
}

impl Switch {
    /// The value as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "0",
            Self::On => "1",
        }
    }
}

impl Display for Switch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the value of a switch: a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a number")]
pub struct NoSwitch;

impl FromStr for Switch {
    type Err = NoSwitch;

    fn from_str(text: &str) -> Result<Self, NoSwitch> {
        match text.parse::<i32>() {
            Ok(0) => Ok(Self::Off),
            Ok(_) => Ok(Self::On),
            Err(_) => Err(NoSwitch),
        }
    }
}

impl Sysctl {
    /// The value that is needed.
    pub const WANTED: Switch = Switch::On;

    /// The dotted name, as in sysctl.d(5).
    pub const fn key(self) -> &'static str {
        match self {
            Self::Ipv4Forward => "net.ipv4.ip_forward",
            Self::Ipv6Forward => "net.ipv6.conf.all.forwarding",
        }
    }

    /// The settings that `ruleset` needs: forwarding for each family that it forwards in.
    pub fn needed_by(ruleset: &Ruleset) -> Vec<Self> {
        let has = |family| {
            [SetKind::Forward, SetKind::Spread]
                .iter()
                .any(|&kind| ruleset.elements(kind, family).next().is_some())
        };
        // Without a single forward the gateway is still one, and IPv4 is what it was built for.
        let ipv6 = has(Family::Ipv6).then_some(Self::Ipv6Forward);
        std::iter::once(Self::Ipv4Forward).chain(ipv6).collect()
    }
}

impl Display for Sysctl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key(), Self::WANTED)
    }
}

/// Where a setting is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The running kernel, `/proc/sys`.
    Live,
    /// The drop-in that the next boot reads, `/etc/sysctl.d/90-cachenat.conf`.
    Boot,
}

/// A setting that differs from what forwarding needs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SysctlChange {
    /// Which one.
    pub sysctl: Sysctl,
    /// Where it differs.
    pub place: Place,
    /// What it is; `None` if it is not set there.
    pub from: Option<Switch>,
    /// What it shall be; `None` to take it away.
    pub to: Option<Switch>,
}

/// Two lines, `-` what is and `+` what will be.
impl Display for SysctlChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let key = self.sysctl.key();
        let place = match self.place {
            Place::Live => "sysctl",
            Place::Boot => "sysctl.d",
        };
        if let Some(from) = &self.from {
            writeln!(f, "- {place} {key} = {from}")?;
        }
        if let Some(to) = &self.to {
            writeln!(f, "+ {place} {key} = {to}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_holds_no_text() {
        assert_eq!("0".parse(), Ok(Switch::Off));
        assert_eq!("1".parse(), Ok(Switch::On));
        assert_eq!("2".parse(), Ok(Switch::On), "net.ipv6.conf.all.forwarding may be 2");
        for text in ["", "1\nkernel.core_pattern = |/x", "on", "1 ", "99999999999"] {
            assert_eq!(text.parse::<Switch>(), Err(NoSwitch), "{text:?}");
        }
        let change = r#"{"sysctl":"net.ipv4.ip_forward","place":"boot","from":"1\nx = 1","to":"1"}"#;
        assert!(serde_json::from_str::<SysctlChange>(change).is_err());
        let change = change.replace("1\\nx = 1", "0");
        let read: SysctlChange = serde_json::from_str(&change).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), change);
    }
}
