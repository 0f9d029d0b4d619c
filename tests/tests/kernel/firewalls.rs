//! The lab's firewalls load their characteristic rules into a namespace.

use cachenat_tests::lab::firewalls::{
    BANNED, Ban, Docker, Firewall, Firewalld, ForwardPolicy, Iptables, Nftables,
};
use cachenat_tests::lab::namespace::Namespace;

/// Loads a firewall into a namespace of its own, and insists on lines of a chain as nft(8) lists it.
#[track_caller]
fn assert_chain(firewall: Firewall, chain: &str, rules: &[&str]) {
    let namespace = Namespace::new();
    firewall.load(&namespace);
    let listed = namespace.nft_list(&format!("chain {chain}"));
    for rule in rules {
        assert!(listed.lines().any(|line| line.trim() == *rule), "{firewall:?} has no {rule}:\n{listed}");
    }
}

/// Loads a firewall in both variants of iptables, and insists on lines of iptables-save(8). The other variant has no
/// rule then.
#[track_caller]
fn assert_rules(firewall: impl Fn(Iptables) -> Firewall, rules: &[&str]) {
    for (variant, other) in [(Iptables::Nft, Iptables::Legacy), (Iptables::Legacy, Iptables::Nft)] {
        let (firewall, namespace) = (firewall(variant), Namespace::new());
        firewall.load(&namespace);
        let saved = variant.save(&namespace);
        for rule in rules {
            assert!(saved.lines().any(|line| line.starts_with(rule)), "{firewall:?} has no {rule}:\n{saved}");
        }
        let saved = other.save(&namespace);
        assert!(!saved.contains("-A "), "{firewall:?} has rules of {other:?}:\n{saved}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn firewalld_rejects_unzoned_forwarding() {
    for (firewalld, translated) in [
        (Firewalld::OfDistribution, "ct status dnat accept"),
        (Firewalld::AnyForwardPorts, "ct status dnat accept"),
        (Firewalld::StrictForwardPorts, "ct status dnat jump filter_FORWARD_dnat"),
    ] {
        let hook = "type filter hook forward priority filter + 10; policy accept;";
        assert_chain(Firewall::Firewalld(firewalld), "inet firewalld filter_FORWARD", &[hook, translated]);
    }
    let strict = Firewall::Firewalld(Firewalld::StrictForwardPorts);
    assert_chain(strict, "inet firewalld filter_FORWARD_dnat", &["reject with icmpx admin-prohibited"]);
    assert_chain(strict, "inet firewalld filter_IN_public_allow", &["tcp dport 22 accept"]);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn ufw_drops_forwarded_packets_by_default() {
    assert_rules(
        |variant| Firewall::Ufw(variant, ForwardPolicy::Drop),
        &[
            ":FORWARD DROP ",
            "-A FORWARD -j ufw-before-forward",
            "-A ufw-before-forward -j ufw-user-forward",
            "-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT",
            "-A ufw-skip-to-policy-forward -j DROP",
        ],
    );
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn ufw_accepts_forwarded_packets_when_configured() {
    assert_rules(
        |variant| Firewall::Ufw(variant, ForwardPolicy::Accept),
        &[
            ":FORWARD ACCEPT ",
            "-A ufw-track-forward -p tcp -m conntrack --ctstate NEW -j ACCEPT",
            "-A ufw-skip-to-policy-forward -j ACCEPT",
        ],
    );
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn fail2ban_rejects_an_address_with_nftables() {
    let set = "ip saddr @addr-set-sshd reject with icmp port-unreachable";
    for (ban, hook, ports) in [
        (Ban::NftablesMultiport, "input", "tcp dport 22"),
        (Ban::NftablesAllports, "input", "meta l4proto tcp"),
        (Ban::NftablesForward, "forward", "meta l4proto tcp"),
    ] {
        let hook = format!("type filter hook {hook} priority filter - 1; policy accept;");
        let (firewall, rule) = (Firewall::Fail2ban(ban), format!("{ports} {set}"));
        assert_chain(firewall, "inet f2b-table f2b-chain", &[&hook, &rule]);
        let namespace = Namespace::new();
        firewall.load(&namespace);
        let banned = namespace.nft_list("set inet f2b-table addr-set-sshd");
        assert!(banned.contains(&format!("elements = {{ {BANNED} }}")), "{banned}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn fail2ban_rejects_an_address_with_iptables() {
    for (ban, jump) in [
        (Ban::IptablesMultiport, "-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd"),
        (Ban::IptablesForward, "-A FORWARD -p tcp -j f2b-sshd"),
    ] {
        let namespace = Namespace::new();
        Firewall::Fail2ban(ban).load(&namespace);
        // fail2ban runs iptables(8), which is the one that this machine has chosen.
        let saved = Iptables::Nft.save(&namespace) + &Iptables::Legacy.save(&namespace);
        let banned = format!("-A f2b-sshd -s {BANNED}/32 -j REJECT --reject-with icmp-port-unreachable");
        for rule in [jump, &banned] {
            assert!(saved.lines().any(|line| line == rule), "{ban:?} has no {rule}:\n{saved}");
        }
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn docker_accepts_a_published_port() {
    let port = "-A DOCKER -d 172.18.0.2/32 ! -i br-5e0c1a7d9b34 -o br-5e0c1a7d9b34 -p tcp -m tcp --dport 80 -j ACCEPT";
    let dnat = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER";
    let common = [":FORWARD DROP ", "-A FORWARD -j DOCKER-USER", port, dnat];
    let with = |rules: &[&'static str]| [&common[..], rules].concat();
    let isolation = "-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2";
    let forward = "-A FORWARD -j DOCKER-FORWARD";
    let v27 = with(&["-A FORWARD -o docker0 -j DOCKER", isolation]);
    assert_rules(|variant| Firewall::Docker(Docker::V27(variant)), &v27);
    let raw = "-A PREROUTING -d 172.18.0.2/32 ! -i br-5e0c1a7d9b34 -p tcp -m tcp --dport 80 -j DROP";
    assert_rules(|variant| Firewall::Docker(Docker::V28_0(variant)), &with(&[forward, isolation, raw]));
    let raw = "-A PREROUTING -d 172.18.0.2/32 ! -i br-5e0c1a7d9b34 -j DROP";
    let internal = "-A DOCKER-FORWARD -j DOCKER-INTERNAL";
    assert_rules(|variant| Firewall::Docker(Docker::V28_5(variant)), &with(&[forward, internal, raw]));
    assert_chain(
        Firewall::Docker(Docker::V29Nftables),
        "ip docker-bridges filter-FORWARD",
        &["oifname vmap @filter-forward-in-jumps"],
    );
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn kube_proxy_drops_invalid_packets() {
    assert_rules(Firewall::KubeProxy, &["-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"]);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_nat_instance_accepts_what_it_forwards() {
    let reject = "-A FORWARD -j REJECT --reject-with icmp-host-prohibited";
    assert_rules(Firewall::IptablesServices, &[reject]);
    assert_rules(Firewall::NatInstance, &["-A POSTROUTING -o ens5 -j MASQUERADE", ":FORWARD ACCEPT "]);
    for variant in [Iptables::Nft, Iptables::Legacy] {
        let namespace = Namespace::new();
        Firewall::NatInstance(variant).load(&namespace);
        let saved = variant.save(&namespace);
        assert!(!saved.contains("-A FORWARD"), "{saved}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_nftables_conf_matches_its_prediction() {
    let (accept, drop) = ("policy accept;", "policy drop;");
    let hook = |policy| format!("type filter hook forward priority filter; {policy}");
    for (nftables, chain, rules) in [
        (Nftables::Debian, "inet filter forward", &[&*hook(accept)][..]),
        (Nftables::DebianWorkstation, "inet filter input", &["ct state established,related accept"]),
        (Nftables::Arch, "inet filter forward", &[&*hook(drop)]),
        (Nftables::HomeRouter, "ip global forward", &[&*hook(drop), "iifname \"eth0\" accept"]),
        (Nftables::DnatRouter, "inet filter forward", &[&*hook(drop), "ct status dnat accept"]),
    ] {
        assert_chain(Firewall::Nftables(nftables), chain, rules);
    }
}
