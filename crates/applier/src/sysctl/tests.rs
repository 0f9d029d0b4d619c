use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use expect_test::expect;
use rules::sysctl::Sysctl::{self, Ipv4Forward, Ipv6Forward};
use tempfile::TempDir;

use super::*;

/// A private `/proc/sys` and `/etc/sysctl.d`.
struct Host {
    root: TempDir,
    sysctls: Sysctls,
}

impl Host {
    fn new(ipv4: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let sysctls = Sysctls::with_proc(&root.path().join("sysctl.d"), &root.path().join("proc"));
        let host = Self { root, sysctls };
        host.set(Ipv4Forward, ipv4);
        host.set(Ipv6Forward, "0");
        host
    }

    fn set(&self, sysctl: Sysctl, value: &str) {
        let path = self.sysctls.live_path(&sysctl);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    }

    fn live(&self, sysctl: Sysctl) -> String {
        self.sysctls.read_live(&sysctl).unwrap().to_string()
    }

    fn drop_in(&self) -> PathBuf {
        self.root.path().join("sysctl.d").join(DROP_IN)
    }
}

fn text(changes: &[SysctlChange]) -> String {
    changes.iter().map(SysctlChange::to_string).collect()
}

#[test]
fn a_second_apply_changes_nothing() {
    let host = Host::new("0");
    let plan = host.sysctls.plan(&[Ipv4Forward]).unwrap();
    let applied = host.sysctls.apply(&[Ipv4Forward]).unwrap();
    assert_eq!(applied.changes, plan.changes);
    expect![[r#"
        - sysctl net.ipv4.ip_forward = 0
        + sysctl net.ipv4.ip_forward = 1
        + sysctl.d net.ipv4.ip_forward = 1
    "#]]
    .assert_eq(&text(&plan.changes));
    assert_eq!(host.live(Ipv4Forward), "1");
    expect![[r#"
        # Written by cachenat. `cachenat remove` deletes this file and puts back what was there before:
        # net.ipv4.ip_forward = 0
        net.ipv4.ip_forward = 1
    "#]]
    .assert_eq(&fs::read_to_string(host.drop_in()).unwrap());
    assert_eq!(fs::metadata(host.drop_in()).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(host.sysctls.apply(&[Ipv4Forward]).unwrap().changes, []);
}

fn removed(host: &Host) -> Vec<SysctlChange> {
    let (changes, failed) = host.sysctls.remove();
    assert!(failed.is_none(), "{failed:?}");
    changes
}

#[test]
fn remove_restores_the_original_values() {
    let host = Host::new("0");
    host.sysctls.apply(&[Ipv4Forward]).unwrap();
    host.sysctls.apply(&[Ipv4Forward, Ipv6Forward]).unwrap();
    let plan = host.sysctls.plan_removal().unwrap();
    assert_eq!(removed(&host), plan);
    assert_eq!((host.live(Ipv4Forward), host.live(Ipv6Forward)), ("0".to_owned(), "0".to_owned()));
    assert!(!host.drop_in().exists());
    assert_eq!(removed(&host), []);
}

#[test]
fn remove_keeps_what_was_on_before() {
    let host = Host::new("1");
    host.sysctls.apply(&[Ipv4Forward]).unwrap();
    removed(&host);
    assert_eq!(host.live(Ipv4Forward), "1");
}

#[test]
fn revert_restores_live_values_and_drop_in() {
    let host = Host::new("0");
    let changes = host.sysctls.apply(&[Ipv4Forward]).unwrap().changes;
    host.sysctls.revert(&changes).unwrap();
    assert_eq!(host.live(Ipv4Forward), "0");
    assert!(!host.drop_in().exists());

    host.sysctls.apply(&[Ipv4Forward]).unwrap();
    let before = fs::read_to_string(host.drop_in()).unwrap();
    let changes = host.sysctls.apply(&[Ipv4Forward, Ipv6Forward]).unwrap().changes;
    host.sysctls.revert(&changes).unwrap();
    assert_eq!(fs::read_to_string(host.drop_in()).unwrap(), before);
    assert_eq!((host.live(Ipv4Forward), host.live(Ipv6Forward)), ("1".to_owned(), "0".to_owned()));
}

#[test]
fn a_partial_failure_is_undone_and_explained() {
    let host = Host::new("0");
    let ipv6 = host.sysctls.live_path(&Ipv6Forward);
    // /dev/full simulates a refusing /proc, because root can write to read-only files.
    fs::remove_file(&ipv6).unwrap();
    std::os::unix::fs::symlink("/dev/full", &ipv6).unwrap();
    let readable = host.root.path().join("zero");
    fs::write(&readable, "0\n").unwrap();
    let change =
        |sysctl, place| SysctlChange { sysctl, place, from: Some(Switch::Off), to: Some(Switch::On) };
    let changes = [
        SysctlChange { from: None, ..change(Ipv4Forward, SysctlTarget::Boot) },
        change(Ipv4Forward, SysctlTarget::Live),
        change(Ipv6Forward, SysctlTarget::Live),
    ];
    let error = host.sysctls.carry_out(&changes).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "write 1 to {}; run as root, or set it on the host with `sysctl -w net.ipv6.conf.all.forwarding=1`",
            ipv6.display()
        )
    );
    assert_eq!(host.live(Ipv4Forward), "1");
    host.sysctls.revert(&changes).unwrap_err();
    assert_eq!(host.live(Ipv4Forward), "0");
    assert!(!host.drop_in().exists());
}

#[test]
fn a_correct_live_value_is_not_written() {
    let host = Host::new("1");
    host.sysctls.apply(&[Ipv4Forward]).unwrap();
    let path = host.sysctls.live_path(&Ipv4Forward);
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(host.sysctls.apply(&[Ipv4Forward]).unwrap().changes, []);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
}

#[test]
fn a_foreign_drop_in_is_refused_untouched() {
    let host = Host::new("0");
    fs::create_dir_all(host.drop_in().parent().unwrap()).unwrap();
    fs::write(host.drop_in(), "net.ipv4.ip_forward = 1\n").unwrap();
    let error = host.sysctls.apply(&[Ipv4Forward]).unwrap_err();
    assert!(
        matches!(&error, SysctlError::Foreign { path, number: 1, .. } if *path == host.drop_in()),
        "{error}"
    );
    assert_eq!(host.live(Ipv4Forward), "0");
    assert!(host.sysctls.remove().1.is_some());
    assert!(host.drop_in().exists());
}

#[test]
fn a_foreign_line_is_kept_and_reported() {
    let host = Host::new("0");
    host.sysctls.apply(&[Ipv4Forward]).unwrap();
    let planted = fs::read_to_string(host.drop_in()).unwrap() + "kernel.core_pattern = |/tmp/x\n";
    fs::write(host.drop_in(), &planted).unwrap();
    host.set(Ipv4Forward, "0");
    let applied = host.sysctls.apply(&[Ipv4Forward, Ipv6Forward]).unwrap();
    let skipped = applied.skipped_drop_in.unwrap().to_string();
    let words = format!(
        "{}:4: \"kernel.core_pattern = |/tmp/x\" was not written by cachenat",
        host.drop_in().display()
    );
    assert!(skipped.starts_with(&words), "{skipped}");
    assert_eq!((host.live(Ipv4Forward), host.live(Ipv6Forward)), ("1".to_owned(), "1".to_owned()));
    host.sysctls.revert(&applied.changes).unwrap();
    assert!(host.sysctls.remove().1.is_some());
    assert_eq!(fs::read_to_string(host.drop_in()).unwrap(), planted);
}

#[test]
fn an_irregular_drop_in_fails_without_blocking() {
    let host = Host::new("0");
    fs::create_dir_all(host.drop_in().parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&host.drop_in(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = host.sysctls.apply(&[Ipv4Forward]).unwrap_err();
    assert!(matches!(error, SysctlError::DropIn { .. }), "{error}");
}

#[test]
fn an_edited_drop_in_is_repaired() {
    let host = Host::new("0");
    host.sysctls.apply(&[Ipv4Forward]).unwrap();
    let edited = fs::read_to_string(host.drop_in())
        .unwrap()
        .replace("\nnet.ipv4.ip_forward = 1", "\nnet.ipv4.ip_forward=0");
    fs::write(host.drop_in(), edited).unwrap();
    expect![[r#"
        - sysctl.d net.ipv4.ip_forward = 0
        + sysctl.d net.ipv4.ip_forward = 1
    "#]]
    .assert_eq(&text(&host.sysctls.apply(&[Ipv4Forward]).unwrap().changes));
    removed(&host);
    assert_eq!(host.live(Ipv4Forward), "0");
}

/// The same host, with these sysctls on `ens5` and a default route from a router advertisement.
fn with_ens5(host: &Host, forwarding: &str, accept_ra: &str) -> Sysctls {
    let ens5: IfName = "ens5".parse().unwrap();
    host.set(Sysctl::Ipv4ForwardOf(ens5.clone()), forwarding);
    host.set(Sysctl::AcceptRa(ens5.clone()), accept_ra);
    let interfaces = Interfaces { ingress: vec![ens5.clone()], advertised: vec![ens5] };
    host.sysctls.clone().of_interfaces(interfaces)
}

#[test]
fn accept_ra_is_set_before_ipv6_forwarding() {
    let host = Host::new("1");
    let sysctls = with_ens5(&host, "1", "1");
    let applied = sysctls.apply(&[Ipv4Forward, Ipv6Forward]).unwrap();
    expect![[r#"
        + sysctl.d net.ipv4.ip_forward = 1
        - sysctl net.ipv6.conf.ens5.accept_ra = 1
        + sysctl net.ipv6.conf.ens5.accept_ra = 2
        + sysctl.d net.ipv6.conf.ens5.accept_ra = 2
        - sysctl net.ipv6.conf.all.forwarding = 0
        + sysctl net.ipv6.conf.all.forwarding = 1
        + sysctl.d net.ipv6.conf.all.forwarding = 1
    "#]]
    .assert_eq(&text(&applied.changes));
    assert_eq!(sysctls.apply(&[Ipv4Forward, Ipv6Forward]).unwrap().changes, []);
    // remove does not know the interface; it is recorded in the file.
    removed(&host);
    let ens5 = "ens5".parse().unwrap();
    assert_eq!((host.live(Sysctl::AcceptRa(ens5)), host.live(Ipv6Forward)), ("1".into(), "0".into()));
    assert!(!host.drop_in().exists());
}

#[test]
fn accept_ra_zero_is_left_alone() {
    let host = Host::new("1");
    let sysctls = with_ens5(&host, "1", "0");
    let changes = sysctls.apply(&[Ipv6Forward]).unwrap().changes;
    assert!(changes.iter().all(|change| change.sysctl == Ipv6Forward), "{changes:?}");
}

#[test]
fn a_failed_setting_reverts_its_prerequisites() {
    let host = Host::new("1");
    let sysctls = with_ens5(&host, "1", "1");
    // It never reads back as a number.
    let path = host.sysctls.live_path(&Ipv6Forward);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    sysctls.apply(&[Ipv6Forward]).unwrap_err();
    assert_eq!(host.live(Sysctl::AcceptRa("ens5".parse().unwrap())), "1");
}

#[test]
fn the_interfaces_own_switch_counts() {
    let host = Host::new("1");
    let sysctls = with_ens5(&host, "0", "0");
    let applied = sysctls.apply(&[Ipv4Forward]).unwrap();
    expect![[r#"
        + sysctl.d net.ipv4.ip_forward = 1
        - sysctl net.ipv4.conf.ens5.forwarding = 0
        + sysctl net.ipv4.conf.ens5.forwarding = 1
        + sysctl.d net.ipv4.conf.ens5.forwarding = 1
    "#]]
    .assert_eq(&text(&applied.changes));
    // Interfaces can disappear.
    let ens5 = "ens5".parse().unwrap();
    fs::remove_dir_all(host.sysctls.live_path(&Sysctl::Ipv4ForwardOf(ens5)).parent().unwrap()).unwrap();
    assert!(sysctls.plan(&[Ipv4Forward]).is_ok());
    removed(&host);
    assert!(!host.drop_in().exists());
}
