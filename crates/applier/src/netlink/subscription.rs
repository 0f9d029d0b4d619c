//! What others commit while the table is read, and until our own commit.
//!
//! The generation counts everybody's commits to every table, so it says too much: the notifications say which of
//! them touched our table. The kernel sends those of a commit before it lets the next one begin.

use std::io;
use std::time::{Duration, Instant};

use super::monitor::{Monitor, MonitorError, Noticed, Port};
use crate::kernel::Generation;

/// How long to wait for the notification of a commit that goes on.
const LIMIT: Duration = Duration::from_secs(1);

/// A subscription that can be switched on, and what was heard by it since the table was last read.
pub(super) struct Subscription {
    monitor: Monitor,
    heard: Option<Noticed>,
    /// To listen costs the kernel a message for each change, so it is done only where others are at work.
    is_on: bool,
}

impl Subscription {
    /// Opens the socket, in the network namespace of the calling thread.
    pub(super) fn open(own: Port) -> io::Result<Self> {
        Ok(Self { monitor: Monitor::open_deaf(Some(own))?, heard: None, is_on: false })
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

    /// A subscription that cannot be ended costs some memory, and what it has heard is not asked for.
    pub(super) fn switch_off(&mut self) {
        if std::mem::take(&mut self.is_on) {
            let _ = self.monitor.unsubscribe();
        }
    }

    /// Takes what has come, so that the socket's buffer has room for more.
    pub(super) fn hear(&mut self) -> Result<(), MonitorError> {
        if self.is_on { self.monitor.drain_into(&mut self.heard) } else { Ok(()) }
    }

    /// Forgets what was heard: the table is about to be read.
    pub(super) fn begin(&mut self) -> Result<(), MonitorError> {
        self.hear()?;
        self.heard = None;
        Ok(())
    }

    /// Whether it is certain that others left our table alone since [`begin`](Self::begin) and up to `generation`, of
    /// which `since` was the first.
    pub(super) fn is_untouched(
        &mut self,
        since: Generation,
        generation: Generation,
    ) -> Result<bool, MonitorError> {
        let end = Instant::now() + LIMIT;
        loop {
            self.hear()?;
            let heard = self.heard.as_ref();
            if heard.is_some_and(|heard| !heard.is_untouched()) {
                return Ok(false);
            }
            let latest = heard.and_then(|heard| heard.generation).unwrap_or(since);
            if !generation.is_after(latest) {
                return Ok(true);
            }
            // A commit counts the generation up before it sends the notification (`nf_tables_commit`).
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let _ = self.monitor.is_readable(u16::try_from(left.as_millis()).unwrap_or(u16::MAX))?;
        }
    }

    /// The latest generation, of which `since` was the first; `None` if others may have touched our table.
    pub(super) fn latest(&mut self, since: Generation) -> Result<Option<Generation>, MonitorError> {
        self.hear()?;
        Ok(match &self.heard {
            Some(heard) if !heard.is_untouched() => None,
            heard => Some(heard.as_ref().and_then(|heard| heard.generation).unwrap_or(since)),
        })
    }
}
