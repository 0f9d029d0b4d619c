//! Sysctls: the live values under `/proc/sys`, and the drop-in file for the next boot.
//!
//! Writes only values that differ, so a read-only `/proc` is fine if its values are already correct. The drop-in also
//! records the original values, for `remove`.

mod drop_in;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rules::IfName;
use rules::sysctl::{DROP_IN, Switch, Sysctl, SysctlChange, SysctlTarget};

use crate::plain_file::{self, Durability};
use drop_in::{DropIn, ForeignLine};

/// The limit for reading a live value, in bytes; a switch has two.
const VALUE_LIMIT: u64 = 64;

/// The limit for reading a drop-in, in bytes; ours has five lines.
const DROP_IN_LIMIT: u64 = 64 * 1024;

/// The sysctls of this host: the live values, and the drop-in file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctls {
    proc_sys: PathBuf,
    drop_in: PathBuf,
    interfaces: Interfaces,
}

/// The interfaces that decide which sysctls forwarding needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// The interfaces that receive the packets to forward.
    pub ingress: Vec<IfName>,
    /// The interfaces whose default route comes from a router advertisement: switching IPv6 forwarding on removes that
    /// route, unless the interface keeps accepting advertisements.
    pub advertised: Vec<IfName>,
}

/// What [`Sysctls::plan`] would change, and what [`Sysctls::apply`] did.
#[derive(Debug)]
pub struct Applied {
    /// The changes, for [`Sysctls::revert`].
    pub changes: Vec<SysctlChange>,
    /// Why the drop-in was skipped: this process may not write it ([`SysctlError::is_denied_drop_in`]), or it has a line
    /// that cachenat did not write ([`SysctlError::Foreign`]). The live values are set regardless.
    pub skipped_drop_in: Option<SysctlError>,
}

/// Why a sysctl could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// A live value cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A live value cannot be set.
    #[error("write {value} to {}; run as root, or set it on the host with `sysctl -w {key}={value}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The sysctl.
        key: String,
        /// The value to write.
        value: Switch,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel accepted a live value, but reads back another.
    #[error("wrote {written} to {}, but it still reads {found}", path.display())]
    NotAsWritten {
        /// The file.
        path: PathBuf,
        /// The written value.
        written: Switch,
        /// The value read back.
        found: Switch,
    },
    /// The drop-in cannot be read, written or deleted.
    #[error("drop-in {}; its directory is sysctl_dir in the configuration", path.display())]
    DropIn {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Another program or person wrote or edited the drop-in file.
    #[error(
        "{}:{number}: {text:?} was not written by cachenat; move it to a file of another name, or set sysctl_dir in the \
         configuration",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        number: usize,
        /// The line.
        text: String,
    },
}

impl SysctlError {
    /// Whether this process may not write the drop-in; the live values can be set regardless.
    ///
    /// A process with CAP_NET_ADMIN may change the live values (`net_ctl_permissions`, net/sysctl_net.c), but the
    /// drop-in's directory belongs to root and is read-only in a service's sandbox.
    pub fn is_denied_drop_in(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(self, Self::DropIn { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
    }
}

impl Sysctls {
    /// The sysctls of the running kernel, with the drop-in in `sysctl_dir` (`/etc/sysctl.d`).
    pub fn new(sysctl_dir: &Path) -> Self {
        Self::with_proc(sysctl_dir, Path::new("/proc/sys"))
    }

    /// Like [`new`](Self::new), with another root than `/proc/sys`.
    pub fn with_proc(sysctl_dir: &Path, proc_sys: &Path) -> Self {
        let interfaces = Interfaces::default();
        Self { proc_sys: proc_sys.to_owned(), drop_in: sysctl_dir.join(DROP_IN), interfaces }
    }

    /// Also sets what forwarding needs on these interfaces.
    #[must_use]
    pub fn of_interfaces(self, interfaces: Interfaces) -> Self {
        Self { interfaces, ..self }
    }

    /// The desired sysctls, and those that they require on this host's interfaces, each before the one that needs it.
    fn with_interfaces(&self, wanted: &[Sysctl]) -> Result<Vec<Sysctl>, SysctlError> {
        let mut all = Vec::new();
        for sysctl in wanted {
            if *sysctl == Sysctl::Ipv6Forward {
                for interface in &self.interfaces.advertised {
                    let heard = Sysctl::AcceptRa(interface.clone());
                    // With 0, another program handles router advertisements and sets the route.
                    if self.read_live(&heard)? != Switch::Off {
                        all.push(heard);
                    }
                }
            }
            all.push(sysctl.clone());
            let ingress = self.interfaces.ingress.iter().filter(|_| *sysctl == Sysctl::Ipv4Forward);
            for interface in ingress {
                let own = Sysctl::Ipv4ForwardOf(interface.clone());
                let is_on = |sysctl| Ok(self.read_live(sysctl)? != Switch::Off);
                // The interface may not exist yet, and the switch of `all` sets every interface.
                if self.live_path(&own).exists() && is_on(sysctl)? && !is_on(&own)? {
                    all.push(own);
                }
            }
        }
        Ok(all)
    }

    /// What [`Sysctls::apply`] would change.
    ///
    /// # Errors
    ///
    /// See [`SysctlError`].
    pub fn plan(&self, wanted: &[Sysctl]) -> Result<Applied, SysctlError> {
        let (drop_in, skipped_drop_in) = match self.read_drop_in() {
            Ok(drop_in) => (Some(drop_in), None),
            // Another hand added a line to our file; that must not stop the forwards.
            Err(foreign @ SysctlError::Foreign { number: 2.., .. }) => (None, Some(foreign)),
            Err(error) => return Err(error),
        };
        let mut changes = Vec::new();
        for sysctl in self.with_interfaces(wanted)? {
            let to = Some(sysctl.wanted());
            let live = self.read_live(&sysctl)?;
            let boot = drop_in.as_ref().map(|file| file.as_ref().and_then(|file| file.value(&sysctl)));
            if live != sysctl.wanted() {
                let sysctl = sysctl.clone();
                changes.push(SysctlChange { sysctl, place: SysctlTarget::Live, from: Some(live), to });
            }
            if let Some(from) = boot.filter(|&boot| boot != to) {
                changes.push(SysctlChange { sysctl, place: SysctlTarget::Boot, from, to });
            }
        }
        Ok(Applied { changes, skipped_drop_in })
    }

    /// Sets the sysctls that forwarding needs, now and for the next boot.
    ///
    /// A sysctl that an earlier run set and that is no longer needed stays until [`Sysctls::remove`]: other programs may
    /// depend on it.
    ///
    /// Skips a drop-in that this process may not write, or that has foreign lines. A drop-in whose first line is not ours
    /// is an error.
    ///
    /// # Errors
    ///
    /// See [`SysctlError`]. Changes made before the error are undone.
    pub fn apply(&self, wanted: &[Sysctl]) -> Result<Applied, SysctlError> {
        let Applied { mut changes, skipped_drop_in } = self.plan(wanted)?;
        match self.all_or_none(&changes) {
            Ok(()) => Ok(Applied { changes, skipped_drop_in }),
            Err(denied) if denied.is_denied_drop_in() => {
                changes.retain(|change| change.place == SysctlTarget::Live);
                self.all_or_none(&changes)?;
                Ok(Applied { changes, skipped_drop_in: Some(denied) })
            }
            Err(error) => Err(error),
        }
    }

    /// Like [`Sysctls::apply`], but only for the running kernel, not for the next boot.
    ///
    /// # Errors
    ///
    /// See [`SysctlError`]. Changes made before the error are undone.
    pub fn apply_now(&self, wanted: &[Sysctl]) -> Result<Applied, SysctlError> {
        let Applied { mut changes, .. } = self.plan(wanted)?;
        changes.retain(|change| change.place == SysctlTarget::Live);
        self.all_or_none(&changes)?;
        Ok(Applied { changes, skipped_drop_in: None })
    }

    fn all_or_none(&self, changes: &[SysctlChange]) -> Result<(), SysctlError> {
        self.carry_out(changes).inspect_err(|_| {
            // Report the first error. The next run repairs whatever cannot be undone now.
            let _ = self.revert(changes);
        })
    }

    fn carry_out(&self, changes: &[SysctlChange]) -> Result<(), SysctlError> {
        // The drop-in comes first: it holds the original values, and the run may be killed at any point.
        if changes.iter().any(|change| change.place == SysctlTarget::Boot) {
            let mut drop_in = self.read_drop_in()?.unwrap_or_default();
            for change in changes.iter().filter(|change| change.place == SysctlTarget::Boot) {
                let live = self.read_live(&change.sysctl)?;
                drop_in.set(change.sysctl.clone(), change.sysctl.wanted(), live);
            }
            self.write_drop_in(Some(&drop_in))?;
        }
        for change in changes.iter().filter(|change| change.place == SysctlTarget::Live) {
            self.write_live(&change.sysctl, change.sysctl.wanted())?;
        }
        Ok(())
    }

    /// Undoes the changes of [`Sysctls::apply`], as far as possible.
    ///
    /// # Errors
    ///
    /// See [`SysctlError`]; the first of several.
    pub fn revert(&self, changes: &[SysctlChange]) -> Result<(), SysctlError> {
        let (live, boot): (Vec<&SysctlChange>, Vec<_>) =
            changes.iter().partition(|change| change.place == SysctlTarget::Live);
        // Later sysctls depend on earlier ones.
        let live: Vec<_> = live.into_iter().rev().map(|change| self.revert_live(change)).collect();
        let boot = self.revert_drop_in(&boot);
        live.into_iter().collect::<Result<(), _>>().and(boot)
    }

    fn revert_live(&self, change: &SysctlChange) -> Result<(), SysctlError> {
        match change.from {
            Some(before) if self.read_live(&change.sysctl)? != before => {
                self.write_live(&change.sysctl, before)
            }
            _ => Ok(()),
        }
    }

    fn revert_drop_in(&self, changes: &[&SysctlChange]) -> Result<(), SysctlError> {
        if changes.is_empty() {
            return Ok(());
        }
        let Some(mut drop_in) = self.read_drop_in()? else { return Ok(()) };
        for change in changes {
            drop_in.put_back(&change.sysctl, change.from);
        }
        self.write_drop_in(Some(&drop_in).filter(|drop_in| !drop_in.is_empty()))
    }

    /// Whether cachenat switched this sysctl on: the drop-in records that it was off before.
    ///
    /// # Errors
    ///
    /// [`SysctlError::DropIn`] or [`SysctlError::Foreign`].
    pub fn has_switched_on(&self, sysctl: &Sysctl) -> Result<bool, SysctlError> {
        let drop_in = self.read_drop_in()?;
        let setting = drop_in.iter().flat_map(DropIn::settings).find(|(of, _)| *of == sysctl);
        Ok(setting.is_some_and(|(_, setting)| setting.before != sysctl.wanted()))
    }

    /// What [`Sysctls::remove`] would change.
    ///
    /// # Errors
    ///
    /// See [`SysctlError`].
    pub fn plan_removal(&self) -> Result<Vec<SysctlChange>, SysctlError> {
        let Some(drop_in) = self.read_drop_in()? else { return Ok(Vec::new()) };
        let mut changes = Vec::new();
        // Switch forwarding off before the sysctls that it needed.
        for (sysctl, setting) in drop_in.settings().rev() {
            // The sysctls of a removed interface no longer exist.
            let is_there = self.live_path(sysctl).exists()
                || matches!(sysctl, Sysctl::Ipv4Forward | Sysctl::Ipv6Forward);
            let live = if is_there { Some(self.read_live(sysctl)?) } else { None };
            // Keep a live value that another program has changed since.
            if let Some(live) = live.filter(|&live| live == setting.value && live != setting.before) {
                let (sysctl, to) = (sysctl.clone(), Some(setting.before));
                changes.push(SysctlChange { sysctl, place: SysctlTarget::Live, from: Some(live), to });
            }
            let (sysctl, from) = (sysctl.clone(), Some(setting.value));
            changes.push(SysctlChange { sysctl, place: SysctlTarget::Boot, from, to: None });
        }
        Ok(changes)
    }

    /// Restores the values from before cachenat and deletes the drop-in; continues after errors.
    ///
    /// Returns the changes and the first error.
    pub fn remove(&self) -> (Vec<SysctlChange>, Option<SysctlError>) {
        let plan = match self.plan_removal() {
            Ok(plan) => plan,
            Err(error) => return (vec![], Some(error)),
        };
        let mut changes = Vec::new();
        let mut failed = self.write_drop_in(None).err();
        let is_gone = failed.is_none();
        for change in plan {
            let done = match (change.place, change.to) {
                (SysctlTarget::Live, Some(before)) => self.write_live(&change.sysctl, before),
                (SysctlTarget::Boot, _) if !is_gone => continue,
                _ => Ok(()),
            };
            match done {
                Ok(()) => changes.push(change),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        (changes, failed)
    }

    fn live_path(&self, sysctl: &Sysctl) -> PathBuf {
        self.proc_sys.join(sysctl.path())
    }

    fn read_live(&self, sysctl: &Sysctl) -> Result<Switch, SysctlError> {
        let path = self.live_path(sysctl);
        let mut value = String::new();
        let read = File::open(&path).and_then(|file| file.take(VALUE_LIMIT).read_to_string(&mut value));
        let no_switch = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let value = read.and_then(|_| sysctl.value(value.trim_end()).map_err(no_switch));
        value.map_err(|source| SysctlError::Read { path, source })
    }

    fn write_live(&self, sysctl: &Sysctl, value: Switch) -> Result<(), SysctlError> {
        let path = self.live_path(sysctl);
        if let Err(source) = fs::write(&path, format!("{value}\n")) {
            return Err(SysctlError::Write { path, key: sysctl.key(), value, source });
        }
        let found = self.read_live(sysctl)?;
        if found == value {
            return Ok(());
        }
        Err(SysctlError::NotAsWritten { path, written: value, found })
    }

    fn read_drop_in(&self) -> Result<Option<DropIn>, SysctlError> {
        match plain_file::read(&self.drop_in, DROP_IN_LIMIT) {
            Ok(text) => DropIn::parse(&text).map(Some).map_err(|ForeignLine { number, text }| {
                SysctlError::Foreign { path: self.drop_in.clone(), number, text }
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.drop_in_error(source)),
        }
    }

    /// Writes the drop-in atomically, or deletes it (`None`).
    fn write_drop_in(&self, drop_in: Option<&DropIn>) -> Result<(), SysctlError> {
        let written = match drop_in {
            Some(drop_in) => {
                // sysctl.d(5) reads only names that end in `.conf`, so it ignores the temporary file.
                let mode = Some(0o644);
                plain_file::replace(&self.drop_in, mode, [drop_in.to_string()], Durability::Crash)
            }
            None => match fs::remove_file(&self.drop_in) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        };
        written.map_err(|source| self.drop_in_error(source))
    }

    fn drop_in_error(&self, source: io::Error) -> SysctlError {
        SysctlError::DropIn { path: self.drop_in.clone(), source }
    }
}

#[cfg(test)]
mod tests;
