//! Measurements of one thing, and the law by which things grow.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;
use std::{fs, thread};

/// Measurements of one thing, all in one unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds a time, in milliseconds.
    pub(crate) fn push(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1000.0);
    }

    /// Adds times, in milliseconds, where there are any.
    pub(crate) fn extend(&mut self, times: impl IntoIterator<Item = Duration>) {
        times.into_iter().for_each(|time| self.push(time));
    }

    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Between two measurements, in proportion. Not a number if nothing was measured.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let sorted = self.sorted();
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        let place = last as f64 * share;
        let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        low + (high - low) * place.fract()
    }

    pub(crate) fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

/// How busy the machine's processors are, in percent, over that time; the load average would still tell of a build that
/// has just ended.
pub(crate) fn busy_percent(during: Duration) -> f64 {
    let begin = cpu_times();
    thread::sleep(during);
    let end = cpu_times();
    let (all, idle) = (end.0 - begin.0, end.1 - begin.1);
    100.0 * (1.0 - idle / all)
}

/// All that the processors have been through, and how much of it idle, in ticks (proc_stat(5)).
fn cpu_times() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let times = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let times: Vec<f64> = times.filter_map(|time| time.parse().ok()).take(8).collect();
    (times.iter().sum(), times.get(3..5).map_or(0.0, |idle| idle.iter().sum()))
}

/// `12.3 [11.8-13.0]`: the median, and the middle half.
impl Display for Samples {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [low, median, high] = [0.25, 0.5, 0.75].map(|share| self.quantile(share));
        match median {
            _ if self.is_empty() => f.write_str("-"),
            _ if median >= 1000.0 => write!(f, "{} [{}-{}]", number(median), number(low), number(high)),
            _ => {
                let digits = if median < 10.0 { 2 } else { 1 };
                write!(f, "{median:.digits$} [{low:.digits$}-{high:.digits$}]")
            }
        }
    }
}

/// `12,345` or `12.3` or `1.23`: three digits, or all before the point; a whole number as it is.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && digit.is_ascii_digit() && (digits.len() - place).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        size if size >= 100.0 || size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The exponent `b` of the power law `y = a x^b` that lies closest to the points: least squares on their logarithms.
pub(crate) fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let (mean_x, mean_y) =
        (logs.iter().map(|(x, _)| x).sum::<f64>() / count, logs.iter().map(|(_, y)| y).sum::<f64>() / count);
    let covariance: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    covariance / variance
}

#[cfg(test)]
mod tests {
    use super::{Samples, exponent, number};

    #[test]
    fn power_law_exponent_ignores_the_factor() {
        for b in [0.0, 0.5, 1.0, 1.6] {
            let points = [10.0_f64, 300.0, 1_000.0, 60_000.0].map(|x| (x, 7.5 * x.powf(b)));
            assert!((exponent(&points) - b).abs() < 1e-9, "{b}");
        }
    }

    #[test]
    fn numbers_show_three_digits_and_thousands_separators() {
        let shown = [0.1234, 1.234, 3.0, 12.34, 123.4, 1234.5, 1_234_567.0].map(number);
        assert_eq!(shown, ["0.12", "1.23", "3", "12.3", "123", "1,234", "1,234,567"]);
    }

    #[test]
    fn median_of_an_even_count_is_the_midpoint() {
        let samples: Samples = [4.0, 1.0, 2.0, 3.0].into_iter().collect();
        assert!((samples.median() - 2.5).abs() < 1e-9);
    }

    #[test]
    fn samples_show_median_and_quartiles() {
        let samples: Samples = [5.0, 1.0, 2.0, 4.0, 3.0].into_iter().collect();
        assert_eq!(samples.to_string(), "3.00 [2.00-4.00]");
        assert_eq!(Samples::default().to_string(), "-");
    }
}
