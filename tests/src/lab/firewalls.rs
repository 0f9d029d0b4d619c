//! The rules of real firewalls, for what judges rules that other programs have made.
//!
//! Each firewall puts its rules into a [`Namespace`], with its own program where it has one that runs here: firewalld,
//! ufw and fail2ban are Python and need no daemon, D-Bus or systemd for that. `scripts/setup` unpacks their packages
//! below `target/tools/firewalls` and installs none of them, since Debian's start a firewall on installation. dockerd
//! and kube-proxy do not run here; what they make is in files of `tests/firewalls`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::namespace::Namespace;
use super::shell::{run, run_with_input};
use crate::programs;

/// The address that fail2ban has banned.
pub const BANNED: &str = "198.51.100.99";

/// A firewall and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    /// firewalld with its default zone, public, and its default backend, nftables.
    Firewalld(Firewalld),
    /// ufw, enabled with port 22 open, as Ubuntu's guide has it.
    Ufw(Iptables, ForwardPolicy),
    /// fail2ban with its jail sshd and one address banned, [`BANNED`].
    Fail2ban(Ban),
    /// Docker with two bridge networks, and a container that has a port published.
    Docker(Docker),
    /// kube-proxy of Kubernetes 1.28 in iptables mode: pkg/proxy/iptables of kubernetes/kubernetes.
    KubeProxy(Iptables),
    /// The default rules of Red Hat's package iptables-services, which forward nothing.
    IptablesServices(Iptables),
    /// The same after the commands of AWS's guide to NAT instances, "Work with NAT instances" in the user guide of VPC.
    NatInstance(Iptables),
    /// An nftables.conf.
    Nftables(Nftables),
}

/// Which firewalld, and what its firewalld.conf says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewalld {
    /// The one of this machine's distribution, on Debian 12 firewalld 1.3.
    OfDistribution,
    /// firewalld 2.3 or later with `StrictForwardPorts=no`, the default: accepts what any program has translated.
    AnyForwardPorts,
    /// firewalld 2.3 or later with `StrictForwardPorts=yes`: accepts only its own port forwardings.
    StrictForwardPorts,
}

/// In whose tables the rules of iptables(8) are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iptables {
    /// In those of nf_tables, with `match` and `target` expressions for what nftables has no words for.
    Nft,
    /// In ip_tables' and ip6_tables'.
    Legacy,
}

/// ufw's `DEFAULT_FORWARD_POLICY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardPolicy {
    /// ufw's default.
    Drop,
    /// What guides to NAT behind ufw say.
    Accept,
}

/// The action that a fail2ban jail takes, by its file in action.d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ban {
    /// `nftables[type=multiport]`, what Debian 13's jails do.
    NftablesMultiport,
    /// `nftables-allports`.
    NftablesAllports,
    /// `nftables-allports[chain_hook=forward]`, for what a gateway forwards.
    NftablesForward,
    /// `iptables-multiport`, the default.
    IptablesMultiport,
    /// `iptables-allports[chain=FORWARD]`, for what a gateway forwards.
    IptablesForward,
}

/// Whose rules of Docker. The policy of FORWARD is drop in all those of iptables(8): that is what dockerd sets where
/// forwarding was not yet enabled, and it leaves the policy alone where it was.
///
/// From moby/moby: integration/network/bridge/iptablesdoc/generated/usernet-portmap.md of 28.5.2, the same of earlier
/// commits, nftablesdoc/generated/usernet-portmap.md, and the iptables-save listings of pull requests 49518 and 49530.
/// Those of IPv6 are IPv4's with IPv6 addresses, as dockerd makes them; no listing was at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Docker {
    /// Docker 24 to 27: the rules are in FORWARD itself.
    V27(Iptables),
    /// Docker 28.0.1 and later: they are in DOCKER-FORWARD, and the raw table has some.
    V28_0(Iptables),
    /// Docker 28.5: without DOCKER-ISOLATION-STAGE-1 and -2; IPv6 too.
    V28_5(Iptables),
    /// Docker 29 with the firewall backend nftables.
    V29Nftables,
}

/// Which nftables.conf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nftables {
    /// Debian's own: base chains that accept.
    Debian,
    /// `workstation.nft` of Debian's /usr/share/doc/nftables/examples, which has no chain that forwards.
    DebianWorkstation,
    /// Arch Linux's own: an empty chain that drops what is forwarded.
    Arch,
    /// "Simple ruleset for a home router" of the nftables wiki.
    HomeRouter,
    /// By hand: drops what is forwarded unless `ct status dnat`.
    DnatRouter,
}

impl Firewall {
    /// Every firewall, each in every way.
    pub fn all() -> Vec<Self> {
        use Iptables::{Legacy, Nft};
        vec![
            Self::Firewalld(Firewalld::OfDistribution),
            Self::Firewalld(Firewalld::AnyForwardPorts),
            Self::Firewalld(Firewalld::StrictForwardPorts),
            Self::Ufw(Nft, ForwardPolicy::Drop),
            Self::Ufw(Nft, ForwardPolicy::Accept),
            Self::Ufw(Legacy, ForwardPolicy::Drop),
            Self::Ufw(Legacy, ForwardPolicy::Accept),
            Self::Fail2ban(Ban::NftablesMultiport),
            Self::Fail2ban(Ban::NftablesAllports),
            Self::Fail2ban(Ban::NftablesForward),
            Self::Fail2ban(Ban::IptablesMultiport),
            Self::Fail2ban(Ban::IptablesForward),
            Self::Docker(Docker::V27(Nft)),
            Self::Docker(Docker::V27(Legacy)),
            Self::Docker(Docker::V28_0(Nft)),
            Self::Docker(Docker::V28_0(Legacy)),
            Self::Docker(Docker::V28_5(Nft)),
            Self::Docker(Docker::V28_5(Legacy)),
            Self::Docker(Docker::V29Nftables),
            Self::KubeProxy(Nft),
            Self::KubeProxy(Legacy),
            Self::IptablesServices(Nft),
            Self::IptablesServices(Legacy),
            Self::NatInstance(Nft),
            Self::NatInstance(Legacy),
            Self::Nftables(Nftables::Debian),
            Self::Nftables(Nftables::DebianWorkstation),
            Self::Nftables(Nftables::Arch),
            Self::Nftables(Nftables::HomeRouter),
            Self::Nftables(Nftables::DnatRouter),
        ]
    }

    /// Adds the firewall's rules to those of `namespace`; an nftables.conf of Debian's takes all others away first.
    ///
    /// # Panics
    ///
    /// If a program refuses, with its command line and what it said, or `scripts/setup` has not unpacked it.
    pub fn load(self, namespace: &Namespace) {
        match self {
            Self::Firewalld(firewalld) => firewalld.load(namespace),
            Self::Ufw(iptables, forward) => load_ufw(namespace, iptables, forward),
            Self::Fail2ban(ban) => ban.load(namespace),
            Self::Docker(docker) => docker.load(namespace),
            Self::KubeProxy(iptables) => {
                iptables.restore(namespace, include_str!("../../firewalls/kube-proxy.rules"))
            }
            Self::IptablesServices(iptables) => iptables.restore(namespace, IPTABLES_SERVICES),
            Self::NatInstance(iptables) => {
                iptables.restore(namespace, IPTABLES_SERVICES);
                iptables.run(namespace, "-t nat -A POSTROUTING -o ens5 -j MASQUERADE");
                iptables.run(namespace, "-F FORWARD");
            }
            Self::Nftables(nftables) => nftables.load(namespace),
        }
    }
}

const IPTABLES_SERVICES: &str = include_str!("../../firewalls/iptables-services.rules");

impl Firewalld {
    fn load(self, namespace: &Namespace) {
        let (program, strict) = match self {
            Self::OfDistribution => (unpacked("distribution"), None),
            Self::AnyForwardPorts => (unpacked("newer"), Some("no")),
            Self::StrictForwardPorts => (unpacked("newer"), Some("yes")),
        };
        let path = program.join("etc/firewalld/firewalld.conf");
        let mut configuration = read(&path);
        if let Some(strict) = strict {
            let default = "\nStrictForwardPorts=no\n";
            assert!(configuration.contains(default), "{} has no line {default:?}", path.display());
            configuration = configuration.replace(default, &format!("\nStrictForwardPorts={strict}\n"));
        }
        let dir = temporary();
        write(&dir.path().join("firewalld.conf"), &configuration);
        let mut command = namespace.command("python3");
        run(command.arg(script("firewalld.py")).arg(program).arg(dir.path()).arg(unpacked("distribution")));
    }
}

fn load_ufw(namespace: &Namespace, iptables: Iptables, forward: ForwardPolicy) {
    let forward = match forward {
        ForwardPolicy::Drop => "DROP",
        ForwardPolicy::Accept => "ACCEPT",
    };
    let dir = temporary();
    let mut command = namespace.command("unshare");
    command.args(["--mount", "sh"]).arg(script("ufw.sh"));
    command.arg(unpacked("distribution")).arg(dir.path());
    run(with_lock(&mut command, &dir)
        .args([forward, &format!("/usr/sbin/{}", iptables.program("iptables", ""))]));
}

impl Ban {
    fn load(self, namespace: &Namespace) {
        // With the parameters that action_ of jail.conf gives each of them.
        let action = match self {
            Self::NftablesMultiport => {
                r#"nftables[type=multiport, port="%(port)s", protocol="%(protocol)s"]"#
            }
            Self::NftablesAllports => r#"nftables-allports[protocol="%(protocol)s"]"#,
            Self::NftablesForward => r#"nftables-allports[protocol="%(protocol)s", chain_hook=forward]"#,
            Self::IptablesMultiport => {
                r#"iptables-multiport[port="%(port)s", protocol="%(protocol)s", chain="%(chain)s"]"#
            }
            Self::IptablesForward => r#"iptables-allports[protocol="%(protocol)s", chain=FORWARD]"#,
        };
        let (program, dir) = (unpacked("distribution"), temporary());
        let at = |name: &str| dir.path().join(name);
        run(Command::new("cp").arg("-R").arg(program.join("etc/fail2ban/.")).arg(dir.path()));
        let log = at("auth.log");
        write(&log, "");
        let jail = format!(
            "[sshd]\nenabled = true\nbackend = polling\nlogpath = {}\naction = {action}\n",
            log.display()
        );
        write(&at("jail.local"), &jail);
        write(&at("fail2ban.local"), "[Definition]\ndbfile = None\nlogtarget = STDERR\n");
        let mut command = namespace.command("python3");
        command.arg(script("fail2ban.py"));
        run(with_lock(&mut command, &dir).arg(program).arg(dir.path()).arg(BANNED));
    }
}

impl Docker {
    fn load(self, namespace: &Namespace) {
        match self {
            Self::V27(iptables) => {
                iptables.restore(namespace, include_str!("../../firewalls/docker-27.rules"))
            }
            Self::V28_0(iptables) => {
                iptables.restore(namespace, include_str!("../../firewalls/docker-28.0.rules"))
            }
            Self::V28_5(iptables) => {
                iptables.restore(namespace, include_str!("../../firewalls/docker-28.5.rules"));
                iptables.restore6(namespace, include_str!("../../firewalls/docker-28.5.ip6.rules"));
            }
            Self::V29Nftables => namespace.nft(include_str!("../../firewalls/docker-29.nft")),
        }
    }
}

impl Nftables {
    fn load(self, namespace: &Namespace) {
        let of_debian = |path: &str| read(&unpacked("distribution").join(path));
        namespace.nft(&match self {
            Self::Debian => of_debian("etc/nftables.conf"),
            Self::DebianWorkstation => of_debian("usr/share/doc/nftables/examples/workstation.nft"),
            Self::Arch => include_str!("../../firewalls/arch.nft").to_owned(),
            Self::HomeRouter => include_str!("../../firewalls/home-router.nft").to_owned(),
            Self::DnatRouter => include_str!("../../firewalls/dnat-router.nft").to_owned(),
        });
    }
}

impl Iptables {
    /// Loads IPv4 rules in the language of iptables-save(8); tables that they do not name stay.
    pub fn restore(self, namespace: &Namespace, rules: &str) {
        let dir = temporary();
        run_with_input(with_lock(&mut namespace.command(self.program("iptables", "-restore")), &dir), rules);
    }

    /// The same for IPv6.
    pub fn restore6(self, namespace: &Namespace, rules: &str) {
        let dir = temporary();
        run_with_input(with_lock(&mut namespace.command(self.program("ip6tables", "-restore")), &dir), rules);
    }

    /// Runs an iptables(8) command, which is given without the word `iptables`.
    pub fn run(self, namespace: &Namespace, arguments: &str) {
        let dir = temporary();
        let mut command = namespace.command(self.program("iptables", ""));
        run(with_lock(&mut command, &dir).args(arguments.split(' ')));
    }

    /// The IPv4 rules of all tables, in the language of iptables-save(8).
    pub fn save(self, namespace: &Namespace) -> String {
        run(&mut namespace.command(self.program("iptables", "-save")))
    }

    /// The name of one of iptables' programs in this variant.
    fn program(self, family: &str, suffix: &str) -> String {
        match self {
            Self::Nft => format!("{family}-nft{suffix}"),
            Self::Legacy => format!("{family}-legacy{suffix}"),
        }
    }
}

/// Gives iptables-legacy(8) a lock of its own: all namespaces share /run/xtables.lock, and a program that finds it taken
/// fails.
fn with_lock<'a>(command: &'a mut Command, dir: &TempDir) -> &'a mut Command {
    command.env("XTABLES_LOCKFILE", dir.path().join("xtables.lock"))
}

/// A program of `tests/firewalls`.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firewalls").join(name)
}

/// The root of packages that `scripts/setup` has unpacked: the distribution's, or a newer release's.
fn unpacked(release: &str) -> PathBuf {
    programs::firewalls().join(release)
}

fn temporary() -> TempDir {
    let dir = tempfile::Builder::new().prefix("cachenat-firewall-").tempdir();
    dir.expect("the temporary directory is writable")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
