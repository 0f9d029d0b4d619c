//! Helpers for all installation tests.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cachenat_tests::lab::machine::Machine;
use cachenat_tests::lab::product::aws_environment;
use cachenat_tests::lab::redis::Redis;
use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::wait::wait_for;
use cachenat_tests::lab::{Lab, PUBLIC};

/// The version of the packages that are installed first.
pub(crate) const VERSION: &str = "0.1.0";
/// The version that they are upgraded to.
pub(crate) const NEXT: &str = "0.2.0";

/// The source tree.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// An example, as users get it.
pub(crate) fn example(name: &str) -> String {
    fs::read_to_string(repository().join("examples").join(name)).unwrap()
}

/// The directory with the packages of both versions, made once for all tests here.
pub(crate) fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("packages");
        let _ = fs::remove_dir_all(&dir);
        for version in [VERSION, NEXT] {
            let mut package = Command::new(repository().join("scripts/package"));
            run(package.args(["--quick", "--version", version, "--output"]).arg(&dir));
        }
        dir
    })
}

/// The one package of a version with such an ending.
pub(crate) fn package(version: &str, extension: &str) -> PathBuf {
    let files = fs::read_dir(packages()).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |file: &PathBuf| {
        file.extension().is_some_and(|other| other == extension) && file.to_str().unwrap().contains(version)
    };
    let files: Vec<PathBuf> = files.filter(is_it).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// A lab with AWS's example, `my-cluster` of three nodes at 10.0.1.230 to .232, and a machine to install on.
pub(crate) fn lab() -> (Lab, Machine) {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    let machine = lab.boot();
    (lab, machine)
}

/// Installs or upgrades by the .deb, as an operator does who answers no questions.
pub(crate) fn install(machine: &Machine, version: &str) {
    let deb = package(version, "deb");
    let there = format!("/root/{}", deb.file_name().unwrap().to_str().unwrap());
    fs::copy(deb, machine.path(&there)).unwrap();
    machine.run(&["apt-get", "install", "--quiet", "--yes", &there]);
}

/// Writes the configuration, and where the services find the lab's API.
pub(crate) fn configure(lab: &Lab, machine: &Machine) {
    machine.write("/etc/cachenat/config.yaml", &lab.plain_config());
    let environment: String =
        aws_environment().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    machine.write("/etc/cachenat/environment", &environment);
}

/// `cachenat` as root runs it by hand.
pub(crate) fn by_hand(machine: &Machine, args: &[&str]) -> cachenat_tests::lab::product::Run {
    machine.command("cachenat").args(args).envs(aws_environment()).output().unwrap().into()
}

/// The node whose server the client reaches on a port; `None` if it reaches none.
pub(crate) fn reached(lab: &Lab, port: u16) -> Option<String> {
    Redis::connect(&lab.network.client, SocketAddrV4::new(PUBLIC, port)).ok()?.info("run_id").ok()
}

/// Waits until the client reaches every node, by the ports from 6379.
pub(crate) fn wait_until_reached(lab: &Lab) {
    for (node, port) in lab.nodes().zip(6379..) {
        let run_id = node.run_id();
        wait_for(&format!("{} at {port}", node.id), || (reached(lab, port)? == run_id).then_some(()));
    }
}

/// cachenat's table as nft(8) lists it on the NAT instance; empty without it.
pub(crate) fn in_force(lab: &Lab) -> String {
    if !lab.network.nat.nft_list("tables").contains("inet cachenat") {
        return String::new();
    }
    run(lab.network.nat.command("nft").args(["-s", "list", "table", "inet", "cachenat"]))
}

/// Whether the machine's kernel forwards.
pub(crate) fn forwards(lab: &Lab) -> bool {
    lab.network.nat.sysctl("net/ipv4/ip_forward") == "1"
}

/// What a boot leaves of rules and settings: nothing.
pub(crate) fn forget(lab: &Lab) {
    lab.network.nat.nft("flush ruleset");
    lab.network.nat.set_sysctl("net/ipv4/ip_forward", "0");
}
