//! Waits for conditions instead of fixed times.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything in the lab may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Calls `look` until it returns a value.
///
/// # Panics
///
/// After 20 seconds without a value; `what` describes the condition.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
