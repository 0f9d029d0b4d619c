//! The drop-in file as text.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use rules::sysctl::{Switch, Sysctl};

const FIRST_LINE: &str =
    "# Written by cachenat. `cachenat remove` deletes this file and puts back what was there before:";

/// The content of `90-cachenat.conf`.
///
/// The comments record the original values, so that `remove` needs nothing but this file:
///
/// ```text
/// # Written by cachenat. `cachenat remove` deletes this file and puts back what was there before:
/// # net.ipv4.ip_forward = 0
/// net.ipv4.ip_forward = 1
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DropIn {
    settings: BTreeMap<Sysctl, SysctlLine>,
}

/// A sysctl in the drop-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SysctlLine {
    /// The value that the next boot sets.
    pub(super) value: Switch,
    /// The live value before cachenat first changed it.
    pub(super) before: Switch,
}

/// A line that cachenat did not write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignLine {
    /// The line's number, from 1.
    pub(super) number: usize,
    /// The line.
    pub(super) text: String,
}

impl DropIn {
    /// Reads the file's text.
    ///
    /// # Errors
    ///
    /// The first line that cachenat does not write: it must neither be lost nor be treated as ours.
    pub(super) fn parse(text: &str) -> Result<Self, ForeignLine> {
        let mut before = BTreeMap::new();
        let mut values = BTreeMap::new();
        let mut lines = (1..).zip(text.lines());
        let foreign = |number, line: &str| Err(ForeignLine { number, text: line.to_owned() });
        match lines.next() {
            Some((_, FIRST_LINE)) => {}
            first => return foreign(1, first.map(|(_, line)| line).unwrap_or_default()),
        }
        for (number, line) in lines {
            let (side, entry) = match line.strip_prefix('#') {
                Some(rest) => (&mut before, rest),
                None => (&mut values, line),
            };
            match setting(entry) {
                Some((sysctl, value)) => drop(side.insert(sysctl, value)),
                None if line.trim().is_empty() => {}
                None => return foreign(number, line),
            }
        }
        let settings = values.into_iter().map(|(sysctl, value)| {
            let before = before.remove(&sysctl).unwrap_or(value);
            (sysctl, SysctlLine { value, before })
        });
        Ok(Self { settings: settings.collect() })
    }

    /// The sysctls that the file sets.
    pub(super) fn settings(&self) -> impl DoubleEndedIterator<Item = (&Sysctl, &SysctlLine)> {
        self.settings.iter()
    }

    /// The value that the file sets for a sysctl.
    pub(super) fn value(&self, sysctl: &Sysctl) -> Option<Switch> {
        self.settings.get(sysctl).map(|setting| setting.value)
    }

    /// Sets a value; records `live` as the original value, unless one is already recorded.
    pub(super) fn set(&mut self, sysctl: Sysctl, value: Switch, live: Switch) {
        let before = self.settings.get(&sysctl).map_or(live, |setting| setting.before);
        self.settings.insert(sysctl, SysctlLine { value, before });
    }

    /// Restores a sysctl's earlier entry in the file, or removes it.
    pub(super) fn put_back(&mut self, sysctl: &Sysctl, value: Option<Switch>) {
        match (value, self.settings.get_mut(sysctl)) {
            (None, _) => drop(self.settings.remove(sysctl)),
            (Some(value), Some(setting)) => setting.value = value,
            (Some(_), None) => {}
        }
    }

    /// Whether it sets nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }
}

fn setting(line: &str) -> Option<(Sysctl, Switch)> {
    let (key, value) = line.split_once('=')?;
    let sysctl: Sysctl = key.trim().parse().ok()?;
    let value = sysctl.value(value.trim()).ok()?;
    Some((sysctl, value))
}

impl Display for DropIn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        for (sysctl, SysctlLine { before, .. }) in &self.settings {
            writeln!(f, "# {} = {before}", sysctl.key())?;
        }
        for (sysctl, SysctlLine { value, .. }) in &self.settings {
            writeln!(f, "{} = {value}", sysctl.key())?;
        }
        Ok(())
    }
}
