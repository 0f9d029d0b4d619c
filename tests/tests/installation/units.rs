//! The services, by the systemd that will run them: each in its sandbox, as a user of its own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::machine::Machine;
use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::wait::wait_for;

use crate::common::{
    VERSION, by_hand, configure, example, forget, forwards, in_force, install, lab, reached,
    wait_until_reached,
};

const SERVICES: [&str; 3] = ["cachenat.service", "cachenat-watch.service", "cachenat-restore.service"];

fn installed() -> (Lab, Machine) {
    let (lab, machine) = lab();
    install(&machine, VERSION);
    configure(&lab, &machine);
    (lab, machine)
}

fn owner(machine: &Machine, path: &str) -> String {
    machine.run(&["stat", "--format=%U", path]).trim().to_owned()
}

/// The replica `my-cluster-002` is replaced; it is on port 6380.
fn replace(lab: &mut Lab) -> String {
    lab.replace_node("my-cluster-002");
    lab.node("my-cluster-002").run_id()
}

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn the_units_pass_systemd_analyze() {
    let (_lab, machine) = installed();
    let units: Vec<String> = SERVICES
        .iter()
        .chain(&["cachenat.timer"])
        .map(|unit| format!("/usr/lib/systemd/system/{unit}"))
        .collect();
    for unit in &units {
        let verified = machine.runs(&["systemd-analyze", "verify", "--man=no", unit]).exits(0);
        assert_eq!(verified.stderr, "", "{unit}");
    }
    for service in SERVICES {
        // In tenths: 2.5.
        let security = ["systemd-analyze", "security", "--no-pager", "--threshold=25", service];
        machine.runs(&security).exits(0);
    }
    let sandbox = |unit: &str| {
        let text = example(unit);
        let sandbox =
            text.split("# CAP_NET_ADMIN is all").nth(1).unwrap_or_else(|| panic!("{unit} has no sandbox"));
        sandbox.split("\n\n").next().unwrap().trim_end().to_owned()
    };
    assert_eq!(sandbox(SERVICES[1]), sandbox(SERVICES[0]));
    assert_eq!(sandbox(SERVICES[2]), sandbox(SERVICES[0]));
}

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn the_timer_applies_as_its_own_user() {
    let (mut lab, machine) = installed();
    machine.run(&["systemctl", "enable", "--now", "cachenat.timer"]);
    wait_until_reached(&lab);
    assert!(forwards(&lab));
    wait_for("the service to end", || (machine.unit(SERVICES[0], "ActiveState") == "inactive").then_some(()));
    assert_eq!(machine.unit(SERVICES[0], "Result"), "success");
    assert_eq!(owner(&machine, "/var/lib/cachenat/leases.json"), "cachenat");
    assert_eq!(owner(&machine, "/run/cachenat.lock"), "cachenat");
    // The one thing that takes root, and what is said of it.
    assert!(!machine.path("/etc/sysctl.d/90-cachenat.conf").exists());
    let journal = machine.journal(SERVICES[0]);
    assert!(journal.contains("warning: drop-in /etc/sysctl.d/90-cachenat.conf"), "{journal}");

    // Root by hand, which leaves files of its own.
    let said = by_hand(&machine, &["apply"]).exits(0);
    assert!(said.stdout.contains("net.ipv4.ip_forward"), "{said:?}");
    assert_eq!(owner(&machine, "/etc/sysctl.d/90-cachenat.conf"), "root");
    let mut next = replace(&mut lab);
    by_hand(&machine, &["apply"]).exits(0);
    assert_eq!(reached(&lab, 6380), Some(next));
    assert_eq!(owner(&machine, "/var/lib/cachenat/inventory.json"), "root");

    // And the service again, which goes on from them; it has nothing left to warn of.
    next = replace(&mut lab);
    machine.run(&["journalctl", "--rotate", "--vacuum-size=1"]);
    machine.start(SERVICES[0]);
    assert_eq!(reached(&lab, 6380), Some(next));
    assert_eq!(owner(&machine, "/var/lib/cachenat/inventory.json"), "cachenat");
    assert!(!machine.journal(SERVICES[0]).contains("warning"), "{}", machine.journal(SERVICES[0]));
}

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn watch_works_in_its_sandbox() {
    let (mut lab, machine) = installed();
    machine.start(SERVICES[1]);
    // Type=notify: it is started once its rules are in force.
    wait_until_reached(&lab);
    let pid = machine.unit(SERVICES[1], "MainPID");
    assert_eq!(machine.unit(SERVICES[1], "StatusText"), "3 nodes forwarded");
    assert_eq!(owner(&machine, &format!("/proc/{pid}")), "cachenat");
    let status = machine.read(&format!("/proc/{pid}/status"));
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    // Bit 12 is CAP_NET_ADMIN; 2: a filter of system calls.
    assert_eq!([line("CapEff:"), line("CapBnd:")], ["0000000000001000", "0000000000001000"]);
    assert_eq!([line("NoNewPrivs:"), line("Seccomp:")], ["1", "2"]);

    let next = replace(&mut lab);
    wait_for("the new node", || (reached(&lab, 6380)? == next).then_some(()));
    let before = in_force(&lab);
    lab.network.nat.nft("delete table inet cachenat");
    wait_for("the rules to be back", || (in_force(&lab) == before).then_some(()));
    machine.run(&["systemctl", "reload", SERVICES[1]]);
    wait_for("the reload", || {
        machine.journal(SERVICES[1]).contains("configuration read again").then_some(())
    });
    assert_eq!(
        (machine.unit(SERVICES[1], "NRestarts").as_str(), machine.unit(SERVICES[1], "MainPID")),
        ("0", pid)
    );
    machine.run(&["systemctl", "stop", SERVICES[1]]);
    assert_eq!(machine.unit(SERVICES[1], "Result"), "success");
    assert_eq!(in_force(&lab), before, "what it made stays in force");
}

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn a_boot_without_network_restores_the_rules() {
    let (mut lab, mut machine) = installed();
    // The first boot with it enabled has nothing to restore, which is no failure.
    machine.run(&["systemctl", "enable", SERVICES[2]]);
    machine.start(SERVICES[2]);
    assert_eq!(machine.unit(SERVICES[2], "ConditionResult"), "no");
    machine.start(SERVICES[0]);
    let before = in_force(&lab);
    machine.switch_off();
    forget(&lab);
    lab.stop_api();
    lab.stop_dns();
    machine.switch_on();
    assert_eq!((machine.unit(SERVICES[2], "ActiveState").as_str(), in_force(&lab)), ("active", before));
    assert!(forwards(&lab), "without the drop-in too, which root has not written");
    wait_until_reached(&lab);
}

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn only_root_rolls_back_roots_change() {
    let (lab, machine) = installed();
    let mut apply = machine.command("cachenat");
    apply.args(["apply", "--confirm", "600"]).envs(cachenat_tests::lab::product::aws_environment());
    let _apply = cachenat_tests::lab::daemon::Daemon::start(&mut apply);
    wait_until_reached(&lab);
    // No guard is left, and its file is root's alone: the service's user can neither roll it back nor confirm it.
    machine.run(&["sh", "-c", "kill -KILL $(grep -l ^cachenat /proc/[0-9]*/comm | cut -d/ -f3)"]);
    wait_for("both to end", || {
        (machine.runs(&["sh", "-c", "grep -q ^cachenat /proc/[0-9]*/comm"]).code == 1).then_some(())
    });
    machine.write("/etc/cachenat/config.yaml", &lab.plain_config().replace("198.51.100.27", "198.51.100.28"));
    machine.runs(&["systemctl", "start", SERVICES[0]]);
    let journal = machine.journal(SERVICES[0]);
    assert!(journal.contains("a change that root made awaits its confirmation"), "{journal}");
    let mut apply = machine.command("cachenat");
    apply.arg("apply").envs(cachenat_tests::lab::product::aws_environment());
    let run = Run::from(apply.output().unwrap()).exits(0);
    assert!(run.stderr.contains("a change was never confirmed"), "{}", run.stderr);
    assert!(in_force(&lab).contains("198.51.100.28"), "{}", in_force(&lab));
    assert_eq!(fs::metadata(machine.path("/var/lib/cachenat")).unwrap().mode() & 0o777, 0o755);
}
