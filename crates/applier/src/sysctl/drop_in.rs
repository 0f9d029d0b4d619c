//! The drop-in file as text.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use rules::sysctl::{Switch, Sysctl};

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
    settings: BTreeMap<Sysctl, SysctlLine>,
}

/// A setting in the drop-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SysctlLine {
    /// What the next boot sets.
    pub(super) value: Switch,
    /// What the live value was when cachenat first came.
    pub(super) before: Switch,
}

/// What in the file's text is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignLine {
    /// Its number, from 1.
    pub(super) number: usize,
    /// What it says.
    pub(super) text: String,
}

impl DropIn {
    /// Reads the file's text.
    ///
    /// # Errors
    ///
    /// The first line that cachenat does not write: nothing of it may be lost, or be taken for ours.
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

    /// What the file sets.
    pub(super) fn settings(&self) -> impl DoubleEndedIterator<Item = (&Sysctl, &SysctlLine)> {
        self.settings.iter()
    }

    /// The value that the file gives to a setting.
    pub(super) fn value(&self, sysctl: &Sysctl) -> Option<Switch> {
        self.settings.get(sysctl).map(|setting| setting.value)
    }

    /// Sets a value; `live` is remembered, unless an earlier value from before is.
    pub(super) fn set(&mut self, sysctl: Sysctl, value: Switch, live: Switch) {
        let before = self.settings.get(&sysctl).map_or(live, |setting| setting.before);
        self.settings.insert(sysctl, SysctlLine { value, before });
    }

    /// Gives a setting the value that it had in the file, or takes it out.
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
