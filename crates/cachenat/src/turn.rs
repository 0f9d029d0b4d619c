//! A run's turn at the kernel and the state: it holds the lock, and nothing is printed before that is released.
//!
//! Runs ask their sources before their turn, so the order of turns says nothing about who knows more. A run therefore
//! leaves the moment at which it asked in the lock file, and an earlier answer gives way to a later one.

use std::time::Duration;

use applier::lock::{self, Lock, LockError};
use nix::time::{ClockId, clock_gettime};

use crate::config::Config;
use crate::output::Hush;

/// The lock and the silence while it is held. Dropping it releases the lock first and then prints what was said.
#[derive(Debug)]
pub(crate) struct Turn {
    // Dropped in this order.
    lock: Lock,
    _hush: Hush,
}

/// The moment at which a run asked its sources: nanoseconds since boot, one sequence for all processes of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        // It can't fail for a clock that Linux has (clock_gettime(2)); a zero only gives way to others.
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Self(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// What the run with the latest answer left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latest {
    pub(crate) moment: Moment,
    /// Whether its answer is in the state directory.
    pub(crate) is_saved: bool,
    /// The digest of the configuration that what is in force was planned with.
    pub(crate) config: u64,
}

impl Turn {
    /// Waits for the lock, and is silent from then on.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    pub(crate) fn take(config: &Config, wait: Duration) -> Result<Self, LockError> {
        let lock = lock::acquire(&config.lock_file, wait)?;
        Ok(Self { lock, _hush: Hush::begin() })
    }

    /// The latest answer that was committed on this host, if any is known.
    pub(crate) fn latest(&self) -> Option<Latest> {
        parse(self.lock.memo(), Moment::now())
    }

    /// The answer that was committed since and asked for later than at `moment`.
    pub(crate) fn later_than(&self, moment: Moment) -> Option<Latest> {
        self.latest().filter(|latest| latest.moment > moment)
    }

    /// Takes note that an answer was committed, and by which configuration.
    pub(crate) fn committed(&mut self, moment: Moment, is_saved: bool, config: &Config) {
        self.note(moment, is_saved, config.digest());
    }

    /// Takes note of an answer that may yet be rolled back, or of a removal: the configuration stays the one before.
    pub(crate) fn asked(&mut self, moment: Moment) {
        self.note(moment, false, self.latest().map_or(0, |latest| latest.config));
    }

    fn note(&mut self, moment: Moment, is_saved: bool, config: u64) {
        let moment = self.latest().map_or(moment, |latest| latest.moment.max(moment));
        let saved = if is_saved { "saved" } else { "unsaved" };
        self.lock.leave_memo(&format!("asked {} {saved} {config:x}", moment.0));
    }
}

/// `asked 1234567 saved 9f86d08188`. A moment after `now` is of an earlier boot or made up, and counts as none.
fn parse(memo: &str, now: Moment) -> Option<Latest> {
    let mut words = memo.strip_prefix("asked ")?.split(' ');
    let moment = Moment(words.next()?.parse().ok()?);
    let is_saved = match words.next()? {
        "saved" => true,
        "unsaved" => false,
        _ => return None,
    };
    let config = u64::from_str_radix(words.next()?, 16).ok()?;
    (moment <= now && words.next().is_none()).then_some(Latest { moment, is_saved, config })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_to_come_counts_as_none() {
        let at =
            |memo| parse(memo, Moment(7)).map(|latest| (latest.moment.0, latest.is_saved, latest.config));
        assert_eq!(at("asked 7 saved ff"), Some((7, true, 255)));
        assert_eq!(at("asked 6 unsaved 0"), Some((6, false, 0)));
        let huge = "asked 18446744073709551616 saved 0";
        for bad in ["", "asked 8 saved 0", huge, "asked 7 saved", "asked 7 saved x", "asked 7 saved 1 2", "7"]
        {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_asked_later_is_later() {
        let first = Moment::now();
        assert!(first > Moment::default() && Moment::now() > first);
    }
}
