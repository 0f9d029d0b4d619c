//! When something happened.

use std::{
    fmt,
    ops::Add,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A point in time in seconds since 1970 (UTC); in JSON, the bare number.
///
/// The clock of a host can be set back, so an earlier event may have a later timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time so many seconds after the start of 1970.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds)
    }

    /// A time of the system's clock; `None` if it is before 1970.
    pub fn from_system_time(time: SystemTime) -> Option<Self> {
        time.duration_since(UNIX_EPOCH).ok().map(|since| Self(since.as_secs()))
    }

    /// The seconds since 1970.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// How long ago it was at `now`; zero if it is in the future.
    pub const fn elapsed(self, now: Self) -> Duration {
        Duration::from_secs(now.0.saturating_sub(self.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// The time so much later, to the full second; saturates.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let (early, late) = (Timestamp::from_secs(5), Timestamp::from_secs(u64::MAX));
        assert_eq!(early.elapsed(early + Duration::from_secs(7)), Duration::from_secs(7));
        assert_eq!(late.elapsed(early), Duration::ZERO);
        assert_eq!(late + Duration::MAX, late);
    }

    #[test]
    fn json_is_the_bare_number() {
        assert_eq!(serde_json::to_string(&Timestamp::from_secs(7)).unwrap(), "7");
        assert_eq!(serde_json::from_str::<Timestamp>("7").unwrap(), Timestamp::from_secs(7));
        assert!(serde_json::from_str::<Timestamp>("-1").is_err());
    }
}
