//! A verdict on one requirement, and the remedy.

use std::error::Error;
use std::time::Duration;

use serde::Serialize;

/// How it stands with a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It holds.
    Ok,
    /// It may not hold, or not for long.
    Warn,
    /// It does not hold: some client won't reach some node.
    Fail,
}

/// The verdict on one requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it stands with it.
    pub verdict: Level,
    /// What was looked at: `ip_forward`, `node my-cluster-001`.
    pub name: String,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    checks: &'a [Finding],
}

impl Finding {
    /// It holds.
    pub fn ok(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self { verdict: Level::Ok, name: name.into(), what: what.into(), remedy: None }
    }

    /// It may not hold, or not for long.
    pub fn warn(name: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Level::Warn, remedy: Some(remedy.into()), ..Self::ok(name, what) }
    }

    /// It does not hold.
    pub fn fail(name: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Level::Fail, ..Self::warn(name, what, remedy) }
    }

    /// An error of ours, which names its remedy itself where there is one.
    pub fn error(name: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |&error| error.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        Self { verdict: Level::Fail, ..Self::ok(name, causes.join(": ")) }
    }

    fn line(&self) -> String {
        let verdict = match self.verdict {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        let remedy = self.remedy.iter().map(|remedy| format!("; {remedy}")).collect::<String>();
        let line = format!("{verdict:<4}  {}: {}{remedy}", self.name, self.what);
        // One line each, whatever an error brought along.
        line.split(char::is_control).map(str::trim_end).collect::<Vec<_>>().join(" ") + "\n"
    }
}

/// A line for each finding.
pub fn text(findings: &[Finding]) -> String {
    findings.iter().map(Finding::line).collect()
}

/// The findings as a document that grows by addition only.
///
/// # Errors
///
/// None in practice: text is always JSON.
pub fn json(findings: &[Finding]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Document { version: 1, checks: findings }).map(|json| json + "\n")
}

/// How many did not hold: `1 fails, 2 warn`; `None`: all hold.
pub fn summary(findings: &[Finding]) -> Option<String> {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => None,
        (failed, warned) => Some(format!("{failed} fail, {warned} warn")),
    }
}

/// An age as people say it: its largest unit.
pub fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_it_brings_along() {
        let finding = Finding::fail("node a", "two\nlines \x1b[31m", "do this");
        assert_eq!(text(&[finding]), "fail  node a: two lines [31m; do this\n");
        assert_eq!(text(&[Finding::ok("rules", "in step")]), "ok    rules: in step\n");
    }

    #[test]
    fn the_summary_counts_what_does_not_hold() {
        let (ok, warn) = (Finding::ok("a", "b"), Finding::warn("a", "b", "c"));
        assert_eq!(summary(std::slice::from_ref(&ok)), None);
        assert_eq!(summary(&[ok, warn]).as_deref(), Some("0 fail, 1 warn"));
    }
}
