//! The debug log: what the libraries do and decide, a line each on stderr.

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::event::{Level, line};
use super::voice::{Stream, Words, speak};
use crate::args::{Global, LogFormat};
use crate::clock::now;

/// Ours; what the AWS SDK logs could hold a secret.
const TARGETS: [&str; 5] = ["applier", "cachenat", "clients", "discovery", "plan"];

/// Writes the debug log from now on, as `-v`, `-vv` or `CACHENAT_LOG` (`debug`, `trace`) want it.
///
/// # Errors
///
/// If `CACHENAT_LOG` is neither.
pub(crate) fn begin(global: &Global) -> anyhow::Result<()> {
    let by_flag = match global.verbose {
        0 => LevelFilter::OFF,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let by_variable = match std::env::var_os("CACHENAT_LOG").as_ref().map(|value| value.as_encoded_bytes()) {
        None | Some(b"" | b"off") => LevelFilter::OFF,
        Some(b"debug") => LevelFilter::DEBUG,
        Some(b"trace") => LevelFilter::TRACE,
        Some(other) => anyhow::bail!(
            "CACHENAT_LOG: found {:?}; write debug, trace or off",
            String::from_utf8_lossy(other)
        ),
    };
    let level = by_flag.max(by_variable);
    if level > LevelFilter::OFF {
        // Another one is set only where a test has set it.
        let _ = tracing::subscriber::set_global_default(DebugLog { level, format: global.log_format });
    }
    Ok(())
}

/// Takes events and knows no spans.
struct DebugLog {
    level: LevelFilter,
    format: LogFormat,
}

impl Subscriber for DebugLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let of = metadata.target().split("::").next().unwrap_or_default();
        metadata.is_event() && *metadata.level() <= self.level && TARGETS.contains(&of)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let text = line(self.format, Level::Debug, &text.0, now());
        speak(Words { stream: Stream::Err, text, log: self.format });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message, then each field as `name=value`.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written: fmt::Result = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        debug_assert!(written.is_ok(), "a String takes everything");
    }
}
