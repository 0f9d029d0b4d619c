//! The changes as a comment on a pull request, in GitHub's Markdown.

use rules::Switch;
use rules::diff::{Action, targets};

use super::Report;

/// How many listeners the table has at most; a comment may have 65,536 characters (GitHub's limit).
const ROWS: usize = 100;

/// How many bytes of nft's words are shown at most.
const DIFF: usize = 32 * 1024;

impl Report {
    /// What `apply` would change, for those who review it.
    pub(crate) fn markdown(&self) -> String {
        let warnings: String = self.warnings.iter().map(|line| format!("> - {}\n", inline(line))).collect();
        let warnings = if warnings.is_empty() { warnings } else { format!("\n> [!WARNING]\n{warnings}") };
        if self.is_empty() {
            return format!("**cachenat**: in step, nothing to change\n{warnings}");
        }
        let summary = self.summary();
        let diff = fenced("diff", &beginning(&self.text()));
        format!(
            "**cachenat** would change this: {summary}\n{warnings}{}\n\
             <details><summary>In nft's words</summary>\n\n{diff}\n</details>\n",
            self.table()
        )
    }

    /// A row per listener, and per kernel setting.
    fn table(&self) -> String {
        let forwards = self.forwards.iter().map(|change| {
            let action = match change.action {
                Action::Add => "add",
                Action::Remove => "remove",
                Action::Move => "move",
                Action::Update => "update",
            };
            let (from, to) = (targets(&change.from), targets(&change.to));
            row(action, &[&change.id, &change.listen.to_string(), &from, &to])
        });
        let settings = self.sysctls.iter().map(|change| {
            let value = |value: Option<Switch>| value.map_or("", Switch::as_str);
            row("set", &[&change.sysctl.key(), "", value(change.from), value(change.to)])
        });
        let rows: Vec<String> = forwards.chain(settings).collect();
        if rows.is_empty() {
            return String::new();
        }
        let shown: String = rows.iter().take(ROWS).map(String::as_str).collect();
        let more = match rows.len().saturating_sub(ROWS) {
            0 => String::new(),
            more => format!("\n... and {more} more\n"),
        };
        format!("\n| | node | listen | from | to |\n|---|---|---|---|---|\n{shown}{more}")
    }
}

fn row(action: &str, cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|cell| format!(" {} |", code(cell))).collect();
    format!("| {action} |{cells}\n")
}

/// A text as code in a table's cell; a name from outside can't end either.
fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", text.replace(['`', '|'], "'")) }
}

/// A text from outside as a line of code, so that nobody is mentioned by it and no tag is in it.
fn inline(text: &str) -> String {
    format!("`{}`", text.replace('`', "'"))
}

/// As many whole lines as there is room for.
fn beginning(text: &str) -> String {
    let mut shown = String::new();
    for line in text.lines() {
        if shown.len() + line.len() >= DIFF {
            return shown + "  ... (too long for a comment: see 'cachenat diff')\n";
        }
        shown.extend([line, "\n"]);
    }
    shown
}

/// A block of code between fences longer than any run of backticks in it.
fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{text}{fence}\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use rules::{
        AccessList, Actual, AddrPort, Family, Forward, Gateway, Ruleset, Snat, Sysctl, SysctlChange, diff,
        render,
    };

    use super::*;
    use rules::sysctl::SysctlTarget;

    fn endpoint(address: &str, port: u16) -> AddrPort {
        AddrPort { address: address.parse().unwrap(), port: port.try_into().unwrap() }
    }

    fn ruleset(nodes: &[(&str, u16, &str)]) -> Ruleset {
        let forward = |(id, port, to): &(&str, u16, &str)| Forward {
            id: id.parse().unwrap(),
            listen: endpoint("10.0.0.55", *port),
            targets: vec![endpoint(to, 6379)],
        };
        let forwards: Vec<Forward> = nodes.iter().map(forward).collect();
        let families = vec![Family::Ipv4];
        let gateway = Gateway {
            ingress: vec!["eth0".parse().unwrap()],
            families,
            snat: Snat::Masquerade,
            tunnels: vec![],
            max_segment: None,
        };
        render(&[AccessList::new(&["198.51.100.27/32".parse().unwrap()], &forwards)], &gateway)
    }

    fn report(before: &[(&str, u16, &str)], after: &[(&str, u16, &str)]) -> Report {
        let actual = Actual { ruleset: ruleset(before), strangers: vec![] };
        let changes = diff(Some(&actual), Some(&ruleset(after)));
        Report::new(changes, vec![], vec![])
    }

    #[test]
    fn a_comment_has_a_summary_a_table_and_the_diff() {
        let before = [("my-cluster-001", 6379, "10.0.1.230"), ("my-cluster-002", 6380, "10.0.1.231")];
        let after = [("my-cluster-001", 6379, "10.0.1.240"), ("my-cluster-003", 6381, "10.0.1.232")];
        let sysctl = Sysctl::Ipv4Forward;
        let (from, to) = (Some(Switch::Off), Some(Switch::On));
        let sysctls = vec![SysctlChange { sysctl, place: SysctlTarget::Live, from, to }];
        let warnings = vec!["static/local: `@everybody` <b>".to_owned()];
        let report = Report { sysctls, warnings, ..report(&before, &after) };
        expect![[r#"
            **cachenat** would change this: 1 added, 1 removed, 1 moved, 1 settings

            > [!WARNING]
            > - `static/local: '@everybody' <b>`

            | | node | listen | from | to |
            |---|---|---|---|---|
            | move | `my-cluster-001` | `10.0.0.55:6379` | `10.0.1.230:6379` | `10.0.1.240:6379` |
            | remove | `my-cluster-002` | `10.0.0.55:6380` | `10.0.1.231:6379` |  |
            | add | `my-cluster-003` | `10.0.0.55:6381` |  | `10.0.1.232:6379` |
            | set | `net.ipv4.ip_forward` |  | `0` | `1` |

            <details><summary>In nft's words</summary>

            ```diff
              table inet cachenat
                  map forward4
            -         10.0.0.55 . 6379 comment "my-cluster-001" : 10.0.1.230 . 6379
            +         10.0.0.55 . 6379 comment "my-cluster-001" : 10.0.1.240 . 6379
            -         10.0.0.55 . 6380 comment "my-cluster-002" : 10.0.1.231 . 6379
            +         10.0.0.55 . 6381 comment "my-cluster-003" : 10.0.1.232 . 6379
                  set backends4
            -         10.0.1.230 . 6379
            -         10.0.1.231 . 6379
            +         10.0.1.232 . 6379
            +         10.0.1.240 . 6379
                  set listeners4
            -         10.0.0.55 . 6380
            +         10.0.0.55 . 6381
            - sysctl net.ipv4.ip_forward = 0
            + sysctl net.ipv4.ip_forward = 1
            ```

            </details>
        "#]]
        .assert_eq(&report.markdown());
    }

    #[test]
    fn in_step_is_one_line() {
        let nodes = [("my-cluster-001", 6379, "10.0.1.230")];
        assert_eq!(report(&nodes, &nodes).markdown(), "**cachenat**: in step, nothing to change\n");
    }

    #[test]
    fn ten_thousand_changes_still_fit_a_comment() {
        let names: Vec<String> = (0..10_000).map(|number| format!("my-cluster-{number:05}")).collect();
        let nodes: Vec<(&str, u16, &str)> =
            names.iter().zip(10_000..).map(|(name, port)| (name.as_str(), port, "10.0.1.230")).collect();
        let text = report(&[], &nodes).markdown();
        assert!(text.len() < 65_536, "{}", text.len());
        assert!(text.contains("\n... and 9900 more\n"));
    }

    #[test]
    fn a_fence_is_longer_than_any_in_the_text() {
        assert_eq!(fenced("diff", "a ``` b\n"), "````diff\na ``` b\n````\n");
        assert_eq!(code("a|`b"), "`a''b`");
    }
}
