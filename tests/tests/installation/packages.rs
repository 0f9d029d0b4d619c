//! The life of a package on a machine: installed, used, upgraded, purged.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use cachenat_tests::lab::shell::run;

use crate::common::{
    NEXT, VERSION, by_hand, configure, forwards, in_force, install, lab, package, wait_until_reached,
};

const UNITS: [&str; 3] = ["cachenat.timer", "cachenat-watch.service", "cachenat-restore.service"];

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn a_deb_installs_upgrades_and_purges() {
    let (lab, machine) = lab();
    let before = machine.run(&["find", "/etc", "/usr", "/var/lib", "-path", "*cachenat*"]);
    assert_eq!(before, "");

    // Installed, it enables and starts nothing, and does nothing until it is configured.
    install(&machine, VERSION);
    for unit in UNITS {
        assert_eq!(machine.runs(&["systemctl", "is-enabled", unit]).stdout.trim(), "disabled", "{unit}");
        assert_eq!(machine.runs(&["systemctl", "is-active", unit]).stdout.trim(), "inactive", "{unit}");
    }
    let refused = by_hand(&machine, &["apply"]).exits(2);
    assert!(refused.stderr.contains("/etc/cachenat/config.yaml"), "{}", refused.stderr);
    assert_eq!((in_force(&lab).as_str(), forwards(&lab)), ("", false));

    // Used.
    configure(&lab, &machine);
    assert_eq!(
        by_hand(&machine, &["discover", "--json"]).exits(0).json()["nodes"].as_array().unwrap().len(),
        3
    );
    by_hand(&machine, &["apply"]).exits(0);
    wait_until_reached(&lab);
    machine.run(&["systemctl", "enable", "--now", "cachenat-watch.service"]);

    // Upgraded: the configuration, the rules and what is enabled stay, and the watch is the new program.
    let config = machine.read("/etc/cachenat/config.yaml");
    let (rules, pid) = (in_force(&lab), machine.unit("cachenat-watch.service", "MainPID"));
    install(&machine, NEXT);
    assert_eq!(
        machine.run(&["dpkg-query", "--show", "--showformat=${Version}", "cachenat"]),
        format!("{NEXT}-1")
    );
    assert_eq!(machine.read("/etc/cachenat/config.yaml"), config);
    assert_eq!(in_force(&lab), rules);
    assert_eq!(machine.unit("cachenat-watch.service", "ActiveState"), "active");
    assert_ne!(machine.unit("cachenat-watch.service", "MainPID"), pid);
    assert_eq!(machine.runs(&["systemctl", "is-enabled", UNITS[1]]).stdout, "enabled\n");

    // Purged: no way into the caches is left open, and nothing of ours but the user.
    machine.run(&["apt-get", "purge", "--quiet", "--yes", "cachenat"]);
    assert_eq!((in_force(&lab).as_str(), forwards(&lab)), ("", false));
    let after = machine.run(&["find", "/etc", "/usr", "/var/lib", "/run", "-path", "*cachenat*"]);
    assert_eq!(after, "/etc/cachenat\n/etc/cachenat/environment\n", "what others have put there stays");
    machine.run(&["id", "cachenat"]);
    assert_eq!(machine.run(&["systemctl", "--failed", "--no-legend"]), "");
}

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn an_rpm_installs_upgrades_and_erases() {
    let (lab, machine) = lab();
    let rpm = |words: &[&str], version: &str| {
        fs::copy(package(version, "rpm"), machine.path("/root/cachenat.rpm")).unwrap();
        // This rpm knows nothing of what dpkg has installed.
        machine.run(&[&["rpm", "--nodeps"], words, &["/root/cachenat.rpm"]].concat())
    };
    rpm(&["--install"], VERSION);
    for unit in UNITS {
        assert_eq!(machine.runs(&["systemctl", "is-enabled", unit]).stdout.trim(), "disabled", "{unit}");
    }
    by_hand(&machine, &["apply"]).exits(2);
    configure(&lab, &machine);
    let config = machine.read("/etc/cachenat/config.yaml");
    by_hand(&machine, &["apply"]).exits(0);
    machine.run(&["systemctl", "enable", "--now", "cachenat-watch.service"]);
    wait_until_reached(&lab);

    let pid = machine.unit("cachenat-watch.service", "MainPID");
    rpm(&["--upgrade"], NEXT);
    assert_eq!(machine.run(&["rpm", "--query", "cachenat"]), format!("cachenat-{NEXT}-1.x86_64\n"));
    assert_eq!(machine.read("/etc/cachenat/config.yaml"), config);
    assert_ne!(machine.unit("cachenat-watch.service", "MainPID"), pid);
    wait_until_reached(&lab);

    machine.run(&["rpm", "--nodeps", "--erase", "cachenat"]);
    assert_eq!((in_force(&lab).as_str(), forwards(&lab)), ("", false));
    assert_eq!(machine.runs(&["find", "/usr", "-path", "*cachenat*"]).stdout, "");
    // rpm has no purge: who erases a package may want to come back to the ports.
    assert!(machine.path("/var/lib/cachenat/leases.json").exists());
}

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn both_packages_have_equal_files_and_libraries() {
    let deb = run(Command::new("dpkg-deb").arg("--contents").arg(package(VERSION, "deb")));
    let deb = deb.lines().filter(|line| !line.ends_with('/')).map(|line| {
        let path = line.split_whitespace().nth(5).unwrap();
        path.trim_start_matches('.').to_owned()
    });
    let rpm = run(Command::new("rpm").args(["--query", "--list", "--package"]).arg(package(VERSION, "rpm")));
    // Each distribution has a place of its own for these.
    let is_common = |path: &String| {
        !path.contains("/zsh/") && !path.contains("/licenses/") && !path.ends_with("/copyright")
    };
    let mut deb: Vec<String> = deb.filter(is_common).collect();
    let mut rpm: Vec<String> = rpm.lines().map(str::to_owned).filter(is_common).collect();
    deb.sort();
    rpm.sort();
    assert_eq!(deb, rpm);
    for file in [
        "/etc/cachenat/config.yaml",
        "/usr/bin/cachenat",
        "/usr/lib/systemd/system/cachenat.timer",
        "/usr/share/bash-completion/completions/cachenat",
        "/usr/share/doc/cachenat/THIRD-PARTY.gz",
        "/usr/share/fish/vendor_completions.d/cachenat.fish",
        "/usr/share/man/man1/cachenat-apply.1.gz",
    ] {
        assert!(deb.iter().any(|path| path == file), "{file} is not among {deb:?}");
    }
    let mut dpkg = Command::new("dpkg-deb");
    let depends = run(dpkg.arg("--field").arg(package(VERSION, "deb")).arg("Depends"));
    assert!(depends.contains("libmnl0") && depends.contains("libnftnl11"), "{depends}");
    let requires =
        run(Command::new("rpm").args(["--query", "--requires", "--package"]).arg(package(VERSION, "rpm")));
    for library in ["libmnl\n", "libnftnl\n", "libmnl.so.0()(64bit)\n", "libnftnl.so.11()(64bit)\n"] {
        assert!(requires.contains(library), "{requires}");
    }
    let conffiles = run(Command::new("dpkg-deb").arg("--info").arg(package(VERSION, "deb")).arg("conffiles"));
    assert_eq!(conffiles, "/etc/cachenat/config.yaml\n");
    assert_eq!(fs::metadata(package(VERSION, "deb")).unwrap().mode() & 0o777, 0o644);
}
