//! What on this host runs cachenat by itself: systemd's units and cron's tables.

use std::fs;
use std::path::{Path, PathBuf};

use doctor::schedule::{Kind, Runner};

/// Looks below `root` (`/`) for enabled units and lines for cron.
pub(crate) fn runners(root: &Path) -> Vec<Runner> {
    let units = enabled_units(&root.join("etc/systemd/system"));
    let files = cron_files(root).map(|file| Runner { kind: Kind::Cron, name: file.display().to_string() });
    units.into_iter().chain(files).collect()
}

/// Units that some target wants: enabling one makes a link in `TARGET.wants` (systemctl(1)).
fn enabled_units(units: &Path) -> Vec<Runner> {
    let wants = fs::read_dir(units).into_iter().flatten().flatten().map(|entry| entry.path());
    let wants: Vec<PathBuf> = wants
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "wants" || extension == "requires")
        })
        .collect();
    let known = [
        (Kind::Timer, "cachenat.timer"),
        (Kind::Watch, "cachenat-watch.service"),
        (Kind::Restore, "cachenat-restore.service"),
    ];
    let is_wanted = |unit: &str| wants.iter().any(|dir| fs::symlink_metadata(dir.join(unit)).is_ok());
    let enabled = known.into_iter().filter(|(_, unit)| is_wanted(unit));
    enabled.map(|(kind, unit)| Runner { kind, name: unit.to_owned() }).collect()
}

fn cron_files(root: &Path) -> impl Iterator<Item = PathBuf> {
    let dirs = ["etc/cron.d", "var/spool/cron", "var/spool/cron/crontabs"];
    let tables = dirs.map(|dir| fs::read_dir(root.join(dir))).into_iter().flatten().flatten().flatten();
    let files = std::iter::once(root.join("etc/crontab")).chain(tables.map(|entry| entry.path()));
    // A FIFO would never end.
    files.filter(|file| {
        fs::metadata(file).is_ok_and(|file| file.is_file())
            && fs::read_to_string(file).is_ok_and(|text| runs_cachenat(&text))
    })
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
    use doctor::Level::{self, Ok, Warn};
    use doctor::schedule::schedule;

    use super::*;

    fn with(file: &str, text: &str) -> Level {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        schedule(&runners(root.path())).verdict
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
    fn each_runner_is_named_with_what_stops_it() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("etc/systemd/system/timers.target.wants/cachenat.timer", "");
        file("etc/systemd/system/multi-user.target.wants/cachenat-restore.service", "");
        file("etc/cron.d/cachenat", "* * * * * root cachenat apply\n");
        let found: Vec<_> = runners(root.path()).iter().map(|runner| (runner.kind, runner.stop())).collect();
        let cron = root.path().join("etc/cron.d/cachenat");
        assert_eq!(
            found,
            [
                (Kind::Timer, "'systemctl disable --now cachenat.timer' stops it".to_owned()),
                (Kind::Restore, "'systemctl disable --now cachenat-restore.service' stops it".to_owned()),
                (Kind::Cron, format!("delete its line of 'cachenat apply' in {}", cron.display())),
            ]
        );
    }

    #[test]
    fn a_unit_that_is_not_enabled_and_a_comment_are_not() {
        assert_eq!(with("etc/systemd/system/cachenat.timer", ""), Warn);
        assert_eq!(with("etc/cron.d/cachenat", "# * * * * * root cachenat apply\n"), Warn);
        assert_eq!(with("etc/cron.d/cachenat", "* * * * * root cachenat status\n"), Warn);
    }
}
