//! Whether something runs cachenat again when nodes are replaced.

use std::fs;
use std::path::Path;

use super::Finding;

/// Looks below `root` (`/`) for an enabled unit or a line for cron.
pub(crate) fn schedule(root: &Path) -> Finding {
    match enabled_unit(&root.join("etc/systemd/system")).or_else(|| cron_file(root)) {
        Some(who) => Finding::ok("schedule", format!("{who} keeps the rules true")),
        None => Finding::warn(
            "schedule",
            "neither systemd nor cron runs cachenat, so that replaced nodes are not followed",
            "enable cachenat.timer or cachenat-watch.service, or add a line to cron",
        ),
    }
}

/// A unit that some target wants: enabling one makes a link in `TARGET.wants` (systemctl(1)).
fn enabled_unit(units: &Path) -> Option<String> {
    let wants = fs::read_dir(units).ok()?.flatten().filter(|entry| {
        entry.path().extension().is_some_and(|extension| extension == "wants" || extension == "requires")
    });
    let wanted = |unit: &str, dir: &Path| fs::symlink_metadata(dir.join(unit)).is_ok();
    let mut units = wants.filter_map(|entry| {
        ["cachenat.timer", "cachenat-watch.service"].into_iter().find(|unit| wanted(unit, &entry.path()))
    });
    units.next().map(str::to_owned)
}

fn cron_file(root: &Path) -> Option<String> {
    let dirs = ["etc/cron.d", "var/spool/cron", "var/spool/cron/crontabs"];
    let tables = dirs.iter().filter_map(|dir| fs::read_dir(root.join(dir)).ok()).flatten().flatten();
    let mut files = std::iter::once(root.join("etc/crontab")).chain(tables.map(|entry| entry.path()));
    let file = files.find(|file| fs::read_to_string(file).is_ok_and(|text| runs_cachenat(&text)))?;
    Some(file.display().to_string())
}

fn runs_cachenat(crontab: &str) -> bool {
    let mut lines = crontab.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.any(|line| {
        let mut words = line.split_whitespace();
        words.any(|word| word == "cachenat" || word.ends_with("/cachenat"))
            && words.any(|word| word == "apply")
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Ok, Warn};
    use super::*;

    fn with(file: &str, text: &str) -> super::super::Verdict {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        schedule(root.path()).verdict
    }

    #[test]
    fn an_enabled_unit_or_a_line_for_cron_is_enough() {
        let line = "* * * * * root /usr/bin/cachenat apply --quiet\n";
        assert_eq!(with("etc/systemd/system/timers.target.wants/cachenat.timer", ""), Ok);
        assert_eq!(with("etc/systemd/system/multi-user.target.wants/cachenat-watch.service", ""), Ok);
        for file in ["etc/crontab", "etc/cron.d/cachenat", "var/spool/cron/crontabs/root"] {
            assert_eq!(with(file, line), Ok, "{file}");
        }
    }

    #[test]
    fn a_unit_that_is_not_enabled_and_a_comment_are_not() {
        assert_eq!(with("etc/systemd/system/cachenat.timer", ""), Warn);
        assert_eq!(with("etc/cron.d/cachenat", "# * * * * * root cachenat apply\n"), Warn);
        assert_eq!(with("etc/cron.d/cachenat", "* * * * * root cachenat status\n"), Warn);
    }
}
