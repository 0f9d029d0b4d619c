//! The crontab, by the cron that will read it.

use std::time::{Duration, Instant};

use cachenat_tests::lab::product::aws_environment;

use crate::common::{VERSION, configure, example, in_force, install, lab, wait_until_reached};

/// Cron works by the minute, so that this test may take one.
#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn cron_takes_the_crontab_and_applies() {
    let (lab, machine) = lab();
    install(&machine, VERSION);
    configure(&lab, &machine);
    let variables: String =
        aws_environment().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    machine.write("/etc/cron.d/cachenat", &(variables + &example("cachenat.cron")));
    let begin = Instant::now();
    while in_force(&lab).is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(150), "{}", machine.journal("cron.service"));
        std::thread::sleep(Duration::from_millis(200));
    }
    wait_until_reached(&lab);
    let journal = machine.journal("cron.service");
    assert!(journal.contains("CMD (/usr/bin/cachenat apply --quiet)"), "{journal}");
}
