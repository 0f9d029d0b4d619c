//! Follows other processes' commits while the table is read, and until our own commit.
//!
//! The generation counts all commits to all tables; the notifications show which of them changed our table. The kernel
//! sends the notifications of a commit before the next commit can start.

use std::io;
use std::time::{Duration, Instant};

use super::monitor::{Monitor, MonitorError, Noticed, Port};
use crate::kernel::Generation;

/// How long to wait for the notification of a running commit.
const LIMIT: Duration = Duration::from_secs(1);

/// A subscription that can be switched on, and its notifications since the table was last read.
pub(super) struct Subscription {
    monitor: Monitor,
    noticed: Option<Noticed>,
    /// Subscribed only while other processes commit, because each change then costs the kernel a message.
    is_on: bool,
}

impl Subscription {
    /// Opens the socket, in the network namespace of the calling thread.
    pub(super) fn open(own: Port) -> io::Result<Self> {
        Ok(Self { monitor: Monitor::open_unsubscribed(Some(own))?, noticed: None, is_on: false })
    }

    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    pub(super) fn switch_on(&mut self) -> Result<(), MonitorError> {
        if !self.is_on {
            self.monitor.subscribe()?;
            self.is_on = true;
        }
        Ok(())
    }

    /// Unsubscribes. Ignores a failure, which costs only some memory: nothing reads the notifications.
    pub(super) fn switch_off(&mut self) {
        if std::mem::take(&mut self.is_on) {
            let _ = self.monitor.unsubscribe();
        }
    }

    /// Reads the queued notifications, so that the socket's buffer does not overflow.
    pub(super) fn receive(&mut self) -> Result<(), MonitorError> {
        if self.is_on { self.monitor.drain_into(&mut self.noticed) } else { Ok(()) }
    }

    /// Drops earlier notifications, before the table is read.
    pub(super) fn begin(&mut self) -> Result<(), MonitorError> {
        self.receive()?;
        self.noticed = None;
        Ok(())
    }

    /// Whether it is certain that no other process changed our table from [`begin`](Self::begin), at generation `since`, to
    /// `generation`.
    pub(super) fn is_untouched(
        &mut self,
        since: Generation,
        generation: Generation,
    ) -> Result<bool, MonitorError> {
        let end = Instant::now() + LIMIT;
        loop {
            self.receive()?;
            let noticed = self.noticed.as_ref();
            if noticed.is_some_and(|noticed| !noticed.is_untouched()) {
                return Ok(false);
            }
            let latest = noticed.and_then(|noticed| noticed.generation).unwrap_or(since);
            if !generation.is_after(latest) {
                return Ok(true);
            }
            // A commit increments the generation before it sends the notification (`nf_tables_commit`).
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let _ = self.monitor.is_readable(u16::try_from(left.as_millis()).unwrap_or(u16::MAX))?;
        }
    }

    /// The latest generation since `since`; `None` if another process may have changed our table.
    pub(super) fn latest(&mut self, since: Generation) -> Result<Option<Generation>, MonitorError> {
        self.receive()?;
        Ok(match &self.noticed {
            Some(noticed) if !noticed.is_untouched() => None,
            noticed => Some(noticed.as_ref().and_then(|noticed| noticed.generation).unwrap_or(since)),
        })
    }
}
