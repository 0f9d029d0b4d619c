//! The changes, as `diff` and `apply` report them.

mod markdown;

use rules::diff::{Action, ForwardChange, targets};
use rules::sysctl::{Switch, SysctlChange, SysctlTarget};
use rules::{AddrPort, RulesetDiff};
use serde::Serialize;

/// What would be changed, or was.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) changes: RulesetDiff,
    /// What the changes mean for clients.
    pub(crate) forwards: Vec<ForwardChange>,
    pub(crate) sysctls: Vec<SysctlChange>,
    /// What the sources leave open, and what was kept for that.
    pub(crate) warnings: Vec<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    changed: bool,
    changes: Vec<ChangeForm>,
    sysctls: Vec<SysctlForm<'a>>,
    /// What is sent to the kernel, in nft's words.
    commands: Vec<String>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct ChangeForm {
    action: Action,
    id: String,
    listen: String,
    from: Option<String>,
    to: Option<String>,
}

#[derive(Serialize)]
struct SysctlForm<'a> {
    key: String,
    place: SysctlTarget,
    from: Option<&'a str>,
    to: Option<&'a str>,
}

impl From<&ForwardChange> for ChangeForm {
    fn from(change: &ForwardChange) -> Self {
        let joined = |endpoints: &[AddrPort]| (!endpoints.is_empty()).then(|| targets(endpoints));
        Self {
            action: change.action,
            id: change.id.to_string(),
            listen: change.listen.to_string(),
            from: joined(&change.from),
            to: joined(&change.to),
        }
    }
}

impl Report {
    pub(crate) fn new(changes: RulesetDiff, sysctls: Vec<SysctlChange>, warnings: Vec<String>) -> Self {
        Self { forwards: changes.forwards(), changes, sysctls, warnings }
    }

    /// Whether there is anything to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.sysctls.is_empty()
    }

    /// The JSON of the contract.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let operations = self.changes.transaction().operations;
        let document = Document {
            version: 1,
            changed: !self.is_empty(),
            changes: self.forwards.iter().map(ChangeForm::from).collect(),
            sysctls: self
                .sysctls
                .iter()
                .map(|change| SysctlForm {
                    key: change.sysctl.key(),
                    place: change.place,
                    from: change.from.map(Switch::as_str),
                    to: change.to.map(Switch::as_str),
                })
                .collect(),
            commands: operations.iter().map(ToString::to_string).collect(),
            warnings: &self.warnings,
        };
        serde_json::to_string_pretty(&document).map(|json| json + "\n")
    }

    /// The changes in nft syntax.
    pub(crate) fn text(&self) -> String {
        let sysctls: String = self.sysctls.iter().map(ToString::to_string).collect();
        format!("{}{sysctls}", self.changes)
    }

    /// What changes for clients, a line each.
    pub(crate) fn lines(&self) -> String {
        let forwards = self.forwards.iter().map(|change| format!("{change}\n"));
        let sysctls = self.sysctls.iter().map(|change| {
            let to = change.to.map_or("not set", Switch::as_str);
            let place = match change.place {
                SysctlTarget::Live => "now",
                SysctlTarget::Boot => "at boot",
            };
            format!("set {} {to} ({place})\n", change.sysctl.key())
        });
        forwards.chain(sysctls).collect()
    }

    /// The changes in numbers: `1 added, 2 moved`.
    pub(crate) fn summary(&self) -> String {
        let count = |action| self.forwards.iter().filter(|change| change.action == action).count();
        let counts = [
            (count(Action::Add), "added"),
            (count(Action::Remove), "removed"),
            (count(Action::Move), "moved"),
            (count(Action::Update), "updated"),
            (self.sysctls.len(), "settings"),
        ];
        let counts =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let counts: Vec<String> = counts.collect();
        if counts.is_empty() { "rules changed".to_owned() } else { counts.join(", ") }
    }
}
