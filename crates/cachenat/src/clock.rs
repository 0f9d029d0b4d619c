//! The one place where the clock is read.

use std::time::SystemTime;

use plan::Timestamp;

/// The time of the system's clock; the start of 1970 if it is set to before that.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now()).unwrap_or_default()
}
