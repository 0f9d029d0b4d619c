//! User-data, as cloud-init runs it: by root, on a machine that has just booted.

use std::fs;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::machine::Machine;
use cachenat_tests::lab::product::{Run, aws_environment};

use crate::common::{
    VERSION, example, forwards, in_force, lab, package, packages, reached, wait_until_reached,
};

/// The package's sum, as `scripts/package` has written it.
fn sum(extension: &str) -> String {
    let sums = fs::read_to_string(packages().join("SHA256SUMS")).unwrap();
    let file = package(VERSION, extension);
    let name = file.file_name().unwrap().to_str().unwrap();
    let line = sums.lines().find(|line| line.ends_with(name)).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// Runs the example, of which only the place that the package comes from and its sum are others.
fn user_data(machine: &Machine, sha256: &str) -> Run {
    let script = example("user-data.sh");
    let place = script.lines().find_map(|line| line.strip_prefix("packages=")).unwrap();
    let script = script.replace(place, "s3://packages/cachenat");
    machine.write("/root/user-data", &script.replace("\nsha256=\n", &format!("\nsha256={sha256}\n")));
    machine.command("bash").arg("/root/user-data").envs(aws_environment()).output().unwrap().into()
}

fn lab_with_packages() -> (Lab, Machine) {
    let (lab, machine) = lab();
    // The AWS CLI, as far as it goes here.
    machine.write("/usr/bin/aws", "#!/bin/sh\nset -e\n[ \"$1 $2 $3\" = 's3 cp --only-show-errors' ]\ncp \"/root/packages/${4#s3://packages/cachenat/}\" \"$5\"\n");
    machine.run(&["chmod", "+x", "/usr/bin/aws"]);
    fs::create_dir(machine.path("/root/packages")).unwrap();
    for extension in ["deb", "rpm"] {
        let file = package(VERSION, extension);
        fs::copy(&file, machine.path("/root/packages").join(file.file_name().unwrap())).unwrap();
    }
    assert!(packages().exists());
    // What the services need to find the lab's API; on a real instance there is nothing to say.
    fs::create_dir(machine.path("/etc/cachenat")).unwrap();
    let environment: String =
        aws_environment().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    machine.write("/etc/cachenat/environment", &environment);
    (lab, machine)
}

#[track_caller]
fn is_set_up(lab: &Lab, machine: &Machine) {
    wait_until_reached(lab);
    assert!(forwards(lab));
    assert!(machine.path("/etc/sysctl.d/90-cachenat.conf").exists());
    for unit in ["cachenat.timer", "cachenat-restore.service"] {
        assert_eq!(machine.runs(&["systemctl", "is-enabled", unit]).stdout, "enabled\n", "{unit}");
    }
    assert_eq!(machine.unit("cachenat.timer", "ActiveState"), "active");
}

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn user_data_sets_up_debian_and_ubuntu() {
    let (lab, machine) = lab_with_packages();
    user_data(&machine, &sum("deb")).exits(0);
    is_set_up(&lab, &machine);
    let (rules, config) = (in_force(&lab), machine.read("/etc/cachenat/config.yaml"));
    let again = user_data(&machine, &sum("deb")).exits(0);
    assert!(!again.stdout.contains("Setting up cachenat"), "{}", again.stdout);
    assert_eq!((in_force(&lab), machine.read("/etc/cachenat/config.yaml")), (rules, config));
    is_set_up(&lab, &machine);
    assert!(reached(&lab, 6379).is_some());
}

/// Amazon Linux is not to be had here: this is Debian under its name, with an rpm that is real and a dnf that hands it
/// the package.
#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn user_data_installs_the_rpm_on_amazon_linux() {
    let (lab, machine) = lab_with_packages();
    machine.run(&["rm", "/etc/os-release"]);
    machine.write("/etc/os-release", "ID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\n");
    machine.write("/usr/bin/dnf", "#!/bin/sh\nset -e\n[ \"$1 $2 $3\" = 'install --assumeyes --quiet' ]\nrpm --install --nodeps --replacepkgs \"$4\"\n");
    machine.run(&["chmod", "+x", "/usr/bin/dnf"]);
    user_data(&machine, &sum("rpm")).exits(0);
    is_set_up(&lab, &machine);
    assert_eq!(machine.run(&["rpm", "--query", "cachenat"]), format!("cachenat-{VERSION}-1.x86_64\n"));
    user_data(&machine, &sum("rpm")).exits(0);
    is_set_up(&lab, &machine);
}

#[test]
#[ignore = "needs root and a network namespace: scripts/test"]
fn a_package_with_another_checksum_is_refused() {
    let (_lab, machine) = lab_with_packages();
    let none = user_data(&machine, "").exits(1);
    assert!(none.stderr.contains("s3://packages/cachenat/SHA256SUMS"), "{}", none.stderr);
    let other = user_data(&machine, &sum("rpm")).exits(1);
    assert!(other.stderr.contains("did NOT match"), "{}", other.stderr);
    assert!(!machine.path("/usr/bin/cachenat").exists());
}
