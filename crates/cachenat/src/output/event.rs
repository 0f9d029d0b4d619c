//! A line of the log: plain for people, an object for machines; never a control character, which could move a
//! terminal's cursor or forge a line.

use std::borrow::Cow;

use plan::Timestamp;
use serde::Serialize;

use crate::args::LogFormat;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

#[derive(Serialize)]
struct Event<'a> {
    time: Timestamp,
    level: Level,
    message: &'a str,
}

/// The event with its line end.
pub(super) fn line(format: LogFormat, level: Level, message: &str, now: Timestamp) -> String {
    let plain = || match level {
        Level::Debug => format!("debug: {}\n", in_one_line(message)),
        Level::Info => format!("{}\n", in_one_line(message)),
        Level::Warning => format!("warning: {}\n", in_one_line(message)),
        // What ends a run may take several lines to say: each mistake of a configuration has one.
        Level::Error => format!("error: {}\n", printable(message)),
    };
    match format {
        LogFormat::Text => plain(),
        // JSON has its own escapes for line breaks and the like, but leaves C1 and DEL as they are.
        LogFormat::Json => serde_json::to_string(&Event { time: now, level, message })
            .map_or_else(|_| plain(), |json| printable(&json).into_owned() + "\n"),
    }
}

/// The text without line breaks, which could forge another event.
fn in_one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    printable(&lines.join("; ")).into_owned()
}

/// The text with control characters written out (`\u001b`, as JSON does too), except those that lay it out.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if bad(c) {
            // No control character is beyond U+009F.
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVEN: Timestamp = Timestamp::from_secs(7);

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(printable("a\u{1b}[2J\r\u{9b}b\n\tc"), "a\\u001b[2J\\u000d\\u009bb\n\tc");
        assert!(matches!(printable("my-cluster-001\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn an_event_is_one_line_of_json_for_machines_and_words_for_people() {
        let message = "source \"a\":\n  no \u{1b}\u{9b}\n";
        let json = line(LogFormat::Json, Level::Warning, message, SEVEN);
        assert_eq!(
            json,
            "{\"time\":7,\"level\":\"warning\",\"message\":\"source \\\"a\\\":\\n  no \\u001b\\u009b\\n\"}\n"
        );
        assert_eq!(
            line(LogFormat::Text, Level::Warning, message, SEVEN),
            "warning: source \"a\":; no \\u001b\\u009b\n"
        );
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
        assert_eq!(line(LogFormat::Text, Level::Info, "1 moved", SEVEN), "1 moved\n");
    }
}
