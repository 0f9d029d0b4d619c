//! The kernel settings that forwarding needs, as data.

use std::fmt::{self, Display, Formatter};

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

impl Sysctl {
    /// The value that is needed; both are switches.
    pub const WANTED: &'static str = "1";

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
    pub from: Option<String>,
    /// What it shall be; `None` to take it away.
    pub to: Option<String>,
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
