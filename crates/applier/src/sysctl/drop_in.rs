//! The drop-in file as text.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use rules::sysctl::Sysctl;

const FIRST_LINE: &str =
    "# Written by cachenat. `cachenat remove` deletes this file and puts back what was there before:";

/// What `90-cachenat.conf` says.
///
/// The comments carry the values from before, so that the file is all that `remove` needs:
///
/// ```text
/// # Written by cachenat. `cachenat remove` deletes this file and puts back what was there before:
/// # net.ipv4.ip_forward = 0
/// net.ipv4.ip_forward = 1
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DropIn {
    settings: BTreeMap<Sysctl, Setting>,
}

/// A setting in the drop-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// What the next boot sets.
    pub(super) value: String,
    /// What the live value was when cachenat first came.
    pub(super) before: String,
}

impl DropIn {
    /// Reads the file's text; `None` if it was not written by cachenat.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let lines = text.strip_prefix(FIRST_LINE)?;
        let mut before = BTreeMap::new();
        let mut values = BTreeMap::new();
        for line in lines.lines() {
            let (side, line) = match line.strip_prefix('#') {
                Some(line) => (&mut before, line),
                None => (&mut values, line),
            };
            if let Some((sysctl, value)) = setting(line) {
                side.insert(sysctl, value.to_owned());
            }
        }
        let settings = values.into_iter().map(|(sysctl, value)| {
            let before = before.remove(&sysctl).unwrap_or_else(|| value.clone());
            (sysctl, Setting { value, before })
        });
        Some(Self { settings: settings.collect() })
    }

    /// What the file sets.
    pub(super) fn settings(&self) -> impl Iterator<Item = (Sysctl, &Setting)> {
        self.settings.iter().map(|(&sysctl, setting)| (sysctl, setting))
    }

    /// The value that the file gives to a setting.
    pub(super) fn value(&self, sysctl: Sysctl) -> Option<&str> {
        self.settings.get(&sysctl).map(|setting| setting.value.as_str())
    }

    /// Sets a value; `live` is remembered, unless an earlier value from before is.
    pub(super) fn set(&mut self, sysctl: Sysctl, value: &str, live: &str) {
        let before = match self.settings.get(&sysctl) {
            Some(setting) => setting.before.clone(),
            None => live.to_owned(),
        };
        self.settings.insert(sysctl, Setting { value: value.to_owned(), before });
    }

    /// Gives a setting the value that it had in the file, or takes it out.
    pub(super) fn put_back(&mut self, sysctl: Sysctl, value: Option<&str>) {
        match (value, self.settings.get_mut(&sysctl)) {
            (None, _) => drop(self.settings.remove(&sysctl)),
            (Some(value), Some(setting)) => value.clone_into(&mut setting.value),
            (Some(_), None) => {}
        }
    }

    /// Whether it sets nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }
}

fn setting(line: &str) -> Option<(Sysctl, &str)> {
    let (key, value) = line.split_once('=')?;
    let sysctl = [Sysctl::Ipv4Forward, Sysctl::Ipv6Forward].into_iter().find(|s| s.key() == key.trim())?;
    Some((sysctl, value.trim()))
}

impl Display for DropIn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        for (sysctl, Setting { before, .. }) in &self.settings {
            writeln!(f, "# {} = {before}", sysctl.key())?;
        }
        for (sysctl, Setting { value, .. }) in &self.settings {
            writeln!(f, "{} = {value}", sysctl.key())?;
        }
        Ok(())
    }
}
