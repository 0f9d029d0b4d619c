//! The kernel settings that forwarding needs, as data.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::str::FromStr;

use smol_str::SmolStr;

use crate::name::IfName;
use crate::ruleset::{Family, Ruleset};

/// A kernel setting, and the value that forwarding needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "SmolStr", into = "SmolStr")]
pub enum Sysctl {
    /// `net.ipv6.conf.eth0.accept_ra = 2`: router advertisements are heard on that interface also once this host forwards.
    /// With 1 the default route that came by one is deleted when forwarding is switched on (`rt6_purge_dflt_routers`,
    /// net/ipv6/route.c).
    AcceptRa(IfName),
    /// `net.ipv4.ip_forward = 1`, which is also called `net.ipv4.conf.all.forwarding`.
    Ipv4Forward,
    /// `net.ipv4.conf.eth0.forwarding = 1`: what counts for packets that come in by that interface. Whoever switches
    /// [`Self::Ipv4Forward`] switches it on every interface (`inet_forward_change`, net/ipv4/devinet.c).
    Ipv4ForwardOf(IfName),
    /// `net.ipv6.conf.all.forwarding = 1`; the host then ignores router advertisements
    /// (`Documentation/networking/ip-sysctl.rst`).
    Ipv6Forward,
}

/// The drop-in's name; of files that set the same thing, the last in this order wins (sysctl.d(5)).
pub const DROP_IN: &str = "90-cachenat.conf";

/// What the next boot sets a kernel setting to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtBoot {
    /// The line that has the last word, as it stands in the file.
    pub line: String,
    /// What it sets; `None` if it is no number.
    pub value: Option<Switch>,
    /// The file.
    pub file: PathBuf,
    /// Whether the line is the interface's own.
    pub is_of_interface: bool,
}

impl AtBoot {
    /// Whether the setting is not as forwarding needs it.
    pub fn is_amiss(&self, sysctl: &Sysctl) -> bool {
        self.value != Some(sysctl.wanted())
    }

    /// Whether cachenat's own file can't help against it: it is read before, or says nothing of the interface.
    pub fn is_beyond_ours(&self) -> bool {
        self.is_of_interface
            || self.file.file_name().is_some_and(|name| name.as_encoded_bytes() > DROP_IN.as_bytes())
    }
}

/// The value of a kernel setting: no other text is ever written to the kernel or into a drop-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Switch {
    /// `0`
    #[serde(rename = "0")]
    Off,
    /// `1`
    #[serde(rename = "1")]
    On,
    /// `2`, of [`Sysctl::AcceptRa`]: also where this host forwards.
    #[serde(rename = "2")]
    Always,
}

impl Switch {
    /// The value as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "0",
            Self::On => "1",
            Self::Always => "2",
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

/// No setting of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a setting of cachenat's")]
pub struct NoSysctl;

impl FromStr for Sysctl {
    type Err = NoSysctl;

    fn from_str(key: &str) -> Result<Self, NoSysctl> {
        let interface = |begin, end| -> Result<IfName, NoSysctl> {
            let name: Option<&str> = key.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
            name.and_then(|name| name.replace('/', ".").parse().ok()).ok_or(NoSysctl)
        };
        match key {
            "net.ipv4.ip_forward" => Ok(Self::Ipv4Forward),
            "net.ipv6.conf.all.forwarding" => Ok(Self::Ipv6Forward),
            _ if key.starts_with("net.ipv4.") => {
                interface("net.ipv4.conf.", ".forwarding").map(Self::Ipv4ForwardOf)
            }
            _ => interface("net.ipv6.conf.", ".accept_ra").map(Self::AcceptRa),
        }
    }
}

impl TryFrom<SmolStr> for Sysctl {
    type Error = NoSysctl;

    fn try_from(key: SmolStr) -> Result<Self, NoSysctl> {
        key.parse()
    }
}

impl From<Sysctl> for SmolStr {
    fn from(sysctl: Sysctl) -> Self {
        sysctl.key().into()
    }
}

impl Sysctl {
    /// The value that is needed.
    pub const fn wanted(&self) -> Switch {
        match self {
            Self::AcceptRa(_) => Switch::Always,
            Self::Ipv4Forward | Self::Ipv4ForwardOf(_) | Self::Ipv6Forward => Switch::On,
        }
    }

    /// What a value stands for: a switch is on with every number but 0, as the kernel has it.
    ///
    /// # Errors
    ///
    /// [`NoSwitch`], if it is no number.
    pub fn value(&self, text: &str) -> Result<Switch, NoSwitch> {
        match (self, text.parse::<i32>()) {
            (_, Ok(0)) => Ok(Switch::Off),
            (Self::AcceptRa(_), Ok(2)) => Ok(Switch::Always),
            (_, Ok(_)) => Ok(Switch::On),
            (_, Err(_)) => Err(NoSwitch),
        }
    }

    /// The dotted name, as in sysctl.d(5), where a dot of an interface's name is a slash.
    pub fn key(&self) -> String {
        match self {
            Self::AcceptRa(interface) => format!("net.ipv6.conf.{}.accept_ra", slashed(interface)),
            Self::Ipv4Forward => "net.ipv4.ip_forward".to_owned(),
            Self::Ipv4ForwardOf(interface) => format!("net.ipv4.conf.{}.forwarding", slashed(interface)),
            Self::Ipv6Forward => "net.ipv6.conf.all.forwarding".to_owned(),
        }
    }

    /// The file below `/proc/sys`.
    pub fn path(&self) -> String {
        match self {
            Self::AcceptRa(interface) => format!("net/ipv6/conf/{interface}/accept_ra"),
            Self::Ipv4ForwardOf(interface) => format!("net/ipv4/conf/{interface}/forwarding"),
            Self::Ipv4Forward | Self::Ipv6Forward => self.key().replace('.', "/"),
        }
    }

    /// The settings that `ruleset` needs: forwarding for each family that it forwards in.
    pub fn needed_by(ruleset: &Ruleset) -> Vec<Self> {
        let has = |family| ruleset.has_forwards(family);
        // Without a single forward the gateway is still one, and IPv4 is what it was built for.
        let ipv6 = has(Family::Ipv6).then_some(Self::Ipv6Forward);
        std::iter::once(Self::Ipv4Forward).chain(ipv6).collect()
    }
}

impl Display for Sysctl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key(), self.wanted())
    }
}

fn slashed(interface: &IfName) -> String {
    interface.as_str().replace('.', "/")
}

/// Where a setting is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SysctlTarget {
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
    pub place: SysctlTarget,
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
            SysctlTarget::Live => "sysctl",
            SysctlTarget::Boot => "sysctl.d",
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
        let forward = |text| Sysctl::Ipv6Forward.value(text);
        assert_eq!(forward("0"), Ok(Switch::Off));
        assert_eq!(forward("1"), Ok(Switch::On));
        assert_eq!(forward("2"), Ok(Switch::On), "net.ipv6.conf.all.forwarding may be 2");
        for text in ["", "1\nkernel.core_pattern = |/x", "on", "1 ", "99999999999"] {
            assert_eq!(forward(text), Err(NoSwitch), "{text:?}");
        }
        let heard = Sysctl::AcceptRa("eth0".parse().unwrap());
        assert_eq!(["0", "1", "2"].map(|text| heard.value(text).unwrap().as_str()), ["0", "1", "2"]);
        let change = r#"{"sysctl":"net.ipv4.ip_forward","place":"boot","from":"1\nx = 1","to":"1"}"#;
        assert!(serde_json::from_str::<SysctlChange>(change).is_err());
        let change = change.replace("1\\nx = 1", "0");
        let read: SysctlChange = serde_json::from_str(&change).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), change);
    }

    #[test]
    fn a_key_reads_back_and_what_is_no_interface_is_none() {
        for key in [
            "net.ipv4.ip_forward",
            "net.ipv6.conf.all.forwarding",
            "net.ipv4.conf.ens5.forwarding",
            "net.ipv6.conf.eth0/100.accept_ra",
        ] {
            assert_eq!(key.parse::<Sysctl>().unwrap().key(), key);
        }
        assert_eq!(
            "net.ipv6.conf.eth0/100.accept_ra".parse::<Sysctl>().unwrap().path(),
            "net/ipv6/conf/eth0.100/accept_ra"
        );
        for key in [
            "kernel.core_pattern",
            "net.ipv6.conf.//.accept_ra",
            "net.ipv4.conf..forwarding",
            "net.ipv6.conf.eth0.accept_ra = 1\nx",
        ] {
            assert_eq!(key.parse::<Sysctl>(), Err(NoSysctl), "{key}");
        }
    }
}
