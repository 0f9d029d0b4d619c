//! Times in flags and configuration keys.

use std::str::FromStr;
use std::time::Duration;

/// The seconds of a day.
pub(crate) const DAY: u64 = 24 * 60 * 60;

/// A time from `MIN` to `MAX` seconds, so that no sum or product of it overflows: `90s`, `2m`, `1h`; a number alone is
/// seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    pub(crate) fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Span<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.get(digits.len()..) {
            Some("" | "s") => Some(1),
            Some("m") => Some(60),
            Some("h") => Some(3600),
            _ => None,
        };
        let count = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let Some((unit, count)) = unit.zip(count) else {
            return Err("write a number and s, m or h, such as 90s".to_owned());
        };
        let seconds = count.checked_mul(unit).filter(|seconds| (MIN..=MAX).contains(seconds));
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(|| {
            let longest =
                if MAX.is_multiple_of(3600) { format!("{}h", MAX / 3600) } else { format!("{MAX}s") };
            format!("write a time from {MIN}s to {longest}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        let span = |text: &str| text.parse::<Span<1, DAY>>().map(|span| span.get().as_secs());
        assert_eq!((span("90s"), span("2m"), span("7"), span("24h")), (Ok(90), Ok(120), Ok(7), Ok(DAY)));
        for bad in ["", "s", "1d", "-1s", "+1s", "99999999999999999999h", "9999999999999999999h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        for out_of_bounds in ["0", "0s", "0h", "25h", "86401", "9223372036854775807", "18446744073709551615"]
        {
            assert_eq!(span(out_of_bounds), Err("write a time from 1s to 24h".to_owned()), "{out_of_bounds}");
        }
        assert_eq!("0s".parse::<Span<0, DAY>>().map(Span::get), Ok(Duration::ZERO));
    }
}
