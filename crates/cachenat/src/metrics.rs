//! Metrics as Prometheus reads them.
//!
//! Source: Prometheus' text exposition format, version 0.0.4.

pub(crate) mod http;

use std::fmt::{Display, Write};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up, until the process or the rules begin anew.
    Counter,
    /// Counters of values up to some bounds.
    Histogram,
}

/// A text of metrics as it grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exposition {
    text: String,
}

impl Exposition {
    /// Adds a metric, whose name gets `cachenat_` in front; one of which nothing is known is left out.
    pub(crate) fn metric(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = String>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "# HELP cachenat_{name} {help}\n# TYPE cachenat_{name} {kind}");
        samples.for_each(|sample| self.text.extend(["cachenat_", name, &sample, "\n"]));
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// A sample without its name: `{id="my-cluster-001"} 7`.
pub(crate) fn sample(labels: &[(&str, &str)], value: impl Display) -> String {
    let labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if labels.is_empty() { format!(" {value}") } else { format!("{{{}}} {value}", labels.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_without_samples_is_left_out_and_labels_are_escaped() {
        let mut exposition = Exposition::default();
        exposition.metric("nothing", Kind::Gauge, "Nothing.", []);
        exposition.metric("one", Kind::Counter, "One.", [sample(&[("a", "b\\\"\n")], 1), sample(&[], 2)]);
        assert_eq!(
            exposition.into_text(),
            "# HELP cachenat_one One.\n# TYPE cachenat_one counter\n\
             cachenat_one{a=\"b\\\\\\\"\\n\"} 1\ncachenat_one 2\n"
        );
    }
}
