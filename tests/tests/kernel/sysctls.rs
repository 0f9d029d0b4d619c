//! Sysctls of the running kernel.

use applier::sysctl::Sysctls;
use cachenat_tests::lab::namespace::Namespace;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rules::Sysctl;

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn forwarding_is_switched_on_and_restored() {
    let namespace = Namespace::new();
    let directory = tempfile::tempdir().unwrap();
    let sysctls = Sysctls::new(directory.path());
    let wanted = [Sysctl::Ipv4Forward, Sysctl::Ipv6Forward];
    let live = || ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"].map(|path| namespace.sysctl(path));
    let before = live();
    namespace.enter(|| {
        assert_eq!(sysctls.apply(&wanted).unwrap().changes.len(), 4);
        assert_eq!(sysctls.apply(&wanted).unwrap().changes, []);
    });
    assert_eq!(live(), ["1", "1"]);
    assert!(namespace.enter(|| sysctls.remove()).1.is_none());
    assert_eq!(live(), before);
}

#[test]
#[ignore = "needs a network and a mount namespace: scripts/test"]
fn a_read_only_proc_matters_only_when_wrong() {
    let namespace = Namespace::new();
    let directory = tempfile::tempdir().unwrap();
    let sysctls = Sysctls::new(directory.path());
    namespace.set_sysctl("net/ipv4/ip_forward", "1");
    namespace.enter(|| {
        // As in a container; it is this thread's mount namespace alone.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("/proc/sys"), "/proc/sys", none, MsFlags::MS_BIND, none).unwrap();
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, "/proc/sys", none, read_only, none).unwrap();

        assert_eq!(sysctls.apply(&[Sysctl::Ipv4Forward]).unwrap().changes.len(), 1, "only the drop-in");
        let drop_in = directory.path().join("90-cachenat.conf");
        let written = std::fs::read(&drop_in).unwrap();
        let error = sysctls.apply(&[Sysctl::Ipv4Forward, Sysctl::Ipv6Forward]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "write 1 to /proc/sys/net/ipv6/conf/all/forwarding; run as root, or set it on the host with \
             `sysctl -w net.ipv6.conf.all.forwarding=1`"
        );
        assert_eq!(std::fs::read(&drop_in).unwrap(), written, "the drop-in was put back");
    });
}
