//! `check` reports each fault that these tests create.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use cachenat_tests::fake_aws::{Fault, How, shapes};
use cachenat_tests::lab::Lab;
use cachenat_tests::lab::firewalls::Iptables;
use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::shell::run;
use cachenat_tests::programs;

use crate::common::{applied, in_force, spell_out, spelled_out};

/// The lines of `check` about one thing.
#[track_caller]
fn about(run: Run, name: &str) -> String {
    let run = run.exits(1);
    let lines = run.stdout.lines().filter(|line| line[6..].starts_with(&format!("{name}: ")));
    let lines: Vec<&str> = lines.collect();
    assert!(!lines.is_empty(), "nothing about {name}: {}{}", run.stdout, run.stderr);
    lines.join("\n")
}

/// Asserts the only line about something: its verdict, and words in it.
#[track_caller]
fn says(lab: &Lab, name: &str, verdict: &str, words: &str) {
    tells(lab.cachenat(&["check"]), name, verdict, words);
}

/// The same of a run.
#[track_caller]
fn tells(run: Run, name: &str, verdict: &str, words: &str) {
    let found = about(run, name);
    assert!(found.starts_with(verdict) && found.contains(words), "{found}");
}

/// `check` where a file of ours stands in for one of the kernel's, which no namespace has to itself.
fn check_with(lab: &Lab, file: &str, text: &str) -> Run {
    let stand_in = lab.dir().join("stand-in");
    fs::write(&stand_in, text).unwrap();
    let mut command = lab.operator_command("sh");
    command.args(["-c", r#"mount --bind "$0" "$1" && exec "$2" check"#]);
    command.arg(stand_in).arg(file).arg(programs::cachenat());
    command.output().unwrap().into()
}

/// `check` on an instance with metadata: 10.0.0.55 in `vpc-0example` and this subnet.
fn check_in_subnet(lab: &Lab, subnet: &str) -> Run {
    lab.api().change(|scenario| scenario.imds = Some(shapes::instance(subnet)));
    check_with_imds(lab)
}

fn check_with_imds(lab: &Lab) -> Run {
    with_imds(lab.cachenat_command().arg("check"), lab).output().unwrap().into()
}

fn with_imds<'a>(command: &'a mut Command, lab: &Lab) -> &'a mut Command {
    command.env("AWS_EC2_METADATA_DISABLED", "false");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", lab.api().url())
}

/// A table with one chain for nft(8).
fn chain(table: &str, body: &str) -> String {
    format!("table {table} {{\n chain c {{\n {body}\n }}\n}}")
}

/// The lab's only problems: the client connects over the internet in clear text, and the test machine may have no timer.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_healthy_gateway_has_only_the_labs_findings() {
    let lab = applied();
    let before = in_force(&lab);
    let run = lab.cachenat(&["check"]).exits(1);
    let amiss = run.stdout.lines().filter(|line| !line.starts_with("ok "));
    let amiss: Vec<&str> = amiss.filter(|line| !line.contains("schedule: ")).collect();
    assert!(matches!(amiss[..], [line] if line.starts_with("warn  encryption: ")), "{}", run.stdout);
    assert!(run.stdout.contains("ok    nodes: 3 of 3 answer (Redis "), "{}", run.stdout);
    for (name, words) in [
        ("permissions", "DescribeReplicationGroups, DescribeCacheClusters are allowed in us-east-2"),
        ("clock", "agrees with AWS's"),
        ("last good", "every source was read whole"),
        ("conntrack", " connections"),
    ] {
        says(&lab, name, "ok", words);
    }
    assert_eq!(in_force(&lab), before);

    let json = lab.cachenat(&["check", "--json"]).exits(1).json();
    assert_eq!(
        (&json["version"], json["checks"].as_array().unwrap().len()),
        (&1.into(), run.stdout.lines().count())
    );
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn timeouts_and_refused_connections_are_distinguished() {
    let lab = applied();
    let group = |rule: &str| chain("ip group", &format!("type filter hook input priority 0\n {rule}"));
    lab.node("my-cluster-001").host.nft(&group("ip saddr 10.0.0.55 drop"));
    lab.node("my-cluster-002").host.nft(&group("tcp dport 6379 reject with tcp reset"));
    let silent =
        "10.0.1.230:6379 does not answer; let the cache's security group admit 10.0.0.55 on TCP port 6379";
    says(&lab, "node my-cluster-001", "fail", silent);
    says(&lab, "node my-cluster-002", "fail", "10.0.1.231:6379 refuses: nothing listens there");
    says(&lab, "nodes", "ok", "1 of 3");
    // A router that knows better says so at once.
    lab.network.nat.ip("route add unreachable 10.0.1.232/32");
    says(&lab, "node my-cluster-003", "fail", "there is no way to 10.0.1.232:6379");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_password_prompt_is_an_answer() {
    let lab = applied();
    lab.node("my-cluster-003").redis().call(&["CONFIG", "SET", "requirepass", "secret"]).unwrap();
    says(&lab, "nodes", "ok", "3 of 3 answer (2 Redis ");
    says(&lab, "nodes", "ok", "1 Redis that wants a password)");

    let (number, host) = (240, "10.0.1.240");
    let machine = lab.network.private_host([10, 0, 1, number].into());
    spell_out(&lab, &[(1, host)]);
    let listener = machine.enter(|| TcpListener::bind((host, 6379)).unwrap());
    let server = thread::spawn(move || {
        // The first connection gets a banner; the second gets nothing.
        listener.accept().unwrap().0.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        listener.accept().unwrap()
    });
    says(
        &lab,
        "node local-001",
        "warn",
        "speaks neither Redis nor Memcached, but says \"SSH-2.0-OpenSSH_9.2\"",
    );
    says(&lab, "node local-001", "warn", "it says nothing");
    server.join().unwrap();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn aws_denials_and_contradictions_are_reported() {
    let lab = applied();
    let refusal = |action, code, words| Some(Fault::of(action, How::error(code, words)));
    let (clusters, groups) = ("DescribeCacheClusters", "DescribeReplicationGroups");
    for (fault, ahead, name, verdict, words) in [
        (
            refusal(clusters, "AccessDenied", "not authorized"),
            0,
            "permissions",
            "fail",
            "elasticache:DescribeCacheClusters is denied (not authorized); allow it in the IAM policy",
        ),
        (None, 60, "clock", "warn", " s behind AWS's; set this host's clock"),
        (None, -60, "clock", "warn", " s ahead of AWS's; set this host's clock"),
        (None, 400, "clock", "fail", "behind AWS's, which refuses requests that are 5 minutes off"),
        (
            refusal(clusters, "RequestTimeTooSkewed", "too large"),
            0,
            "clock",
            "fail",
            "AWS's, which refuses its requests",
        ),
        (
            refusal(clusters, "Throttling", "slow down"),
            0,
            "AWS API",
            "warn",
            "DescribeCacheClusters: throttled by AWS (Throttling)",
        ),
        (
            refusal(groups, "InvalidClientTokenId", "unknown"),
            0,
            "AWS API",
            "fail",
            "AWS does not accept the credentials (InvalidClientTokenId: unknown)",
        ),
    ] {
        lab.api().change(|scenario| {
            scenario.faults = fault.into_iter().collect();
            scenario.clock_ahead_s = ahead;
        });
        says(&lab, name, verdict, words);
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_misplaced_instance_is_reported() {
    let lab = applied();
    tells(check_in_subnet(&lab, "subnet-0public"), "VPC", "ok", "every cache is in vpc-0example");
    tells(check_with_imds(&lab), "subnet", "ok", "no cache is in subnet-0public");
    tells(check_with_imds(&lab), "public address", "ok", "203.0.113.73 is attached");
    tells(
        check_in_subnet(&lab, "subnet-0example"),
        "subnet",
        "warn",
        "my-cluster-001 may have nodes in subnet-0example",
    );
    lab.api()
        .change(|scenario| scenario.subnet_groups = vec![shapes::subnet_group("vpc-0other", "subnet-0a")]);
    tells(
        check_with_imds(&lab),
        "VPC",
        "warn",
        "my-cluster-001 is in vpc-0other, and this instance in vpc-0example",
    );
    let denied = Fault::of("DescribeCacheSubnetGroups", How::error("AccessDenied", "no"));
    lab.api().change(|scenario| scenario.faults = vec![denied]);
    tells(check_with_imds(&lab), "permissions", "warn", "elasticache:DescribeCacheSubnetGroups is denied");

    lab.api().change(|scenario| {
        let facts = scenario.imds.as_mut().unwrap();
        facts.retain(|path, _| !path.contains("public-ipv4"));
    });
    tells(check_with_imds(&lab), "public address", "warn", "203.0.113.73 is not attached");
    lab.write_config(&lab.plain_config().replace("gateway:", "#"));
    tells(check_with_imds(&lab), "public address", "fail", "has none");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_old_last_run_is_reported() {
    let lab = applied();
    let lock = lab.dir().join("cachenat.lock");
    for (when, verdict, words) in [
        ("2 hours ago", "warn", "every source was read whole 2h ago, by the last run"),
        ("2 days ago", "fail", "every source was read whole 2d ago, by the last run"),
    ] {
        run(Command::new("touch").args(["-d", when]).arg(&lock));
        says(&lab, "last good", verdict, words);
    }
    fs::remove_dir_all(lab.dir().join("state")).unwrap();
    says(&lab, "last good", "warn", "no run has left what it found");
}

/// In an `/etc` of the run's own.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_missing_timer_is_reported() {
    let lab = applied();
    let check = |setup: &str| -> Run {
        let script = "set -e; mkdir -p \"$0\"
            cp -L --parents /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt \"$0\"
            mount -t tmpfs none /etc; cp -r \"$0\"/etc/. /etc
            [ ! -d /var/spool/cron ] || mount -t tmpfs none /var/spool/cron
            sh -c \"$1\"; exec \"$2\" check";
        let mut command = lab.operator_command("sh");
        command.args(["-c", script]).arg(lab.dir().join("kept")).arg(setup).arg(programs::cachenat());
        command.output().unwrap().into()
    };
    tells(check("true"), "schedule", "warn", "neither systemd nor cron runs cachenat");
    for (setup, words) in [
        (
            "mkdir -p /etc/systemd/system/timers.target.wants
             ln -s gone /etc/systemd/system/timers.target.wants/cachenat.timer",
            "cachenat.timer keeps the rules true",
        ),
        (
            "mkdir /etc/cron.d; echo '* * * * * root cachenat apply' > /etc/cron.d/nat",
            "/etc/cron.d/nat keeps",
        ),
    ] {
        tells(check(setup), "schedule", "ok", words);
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_nearly_full_conntrack_table_is_reported() {
    let lab = applied();
    let max: u64 = lab.network.nat.sysctl("net/netfilter/nf_conntrack_max").parse().unwrap();
    let count = "/proc/sys/net/netfilter/nf_conntrack_count";
    let nearly = max * 9 / 10;
    tells(
        check_with(&lab, count, &nearly.to_string()),
        "conntrack",
        "warn",
        "raise net.netfilter.nf_conntrack_max",
    );
    tells(check_with(&lab, count, &max.to_string()), "conntrack", "fail", "new ones are dropped");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn disabled_forwarding_is_reported_now_and_at_boot() {
    let lab = applied();
    says(&lab, "net.ipv4.ip_forward", "ok", "now and at the next boot");
    fs::write(lab.dir().join("sysctl.d/99-sysctl.conf"), "net.ipv4.ip_forward = 0\n").unwrap();
    says(&lab, "net.ipv4.ip_forward", "fail", "99-sysctl.conf sets it to 0 at the next boot");
    lab.network.nat.set_sysctl("net/ipv4/ip_forward", "0");
    says(&lab, "net.ipv4.ip_forward", "fail", "no packet is forwarded");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn missing_or_different_rules_are_reported() {
    let lab = applied();
    says(&lab, "rules", "ok", "in force");
    lab.network.nat.nft("add element inet cachenat clients4 { 198.51.100.28 }");
    says(&lab, "rules", "warn", "out of step");
    lab.network.nat.nft("flush ruleset");
    says(&lab, "rules", "fail", "no table inet cachenat");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_blocking_foreign_chain_gets_a_remedy() {
    let connects =
        "new connections from 198.51.100.27/32 to 10.0.0.55:6379, which lead on to 10.0.1.230:6379";
    let stopping = [
        (
            "ip docker",
            "filter hook forward priority 0; policy drop",
            "the policy of chain ip docker c at forward drops",
        ),
        (
            "inet fw",
            "filter hook forward priority 10\n ct state established accept\n counter drop",
            "of chain inet fw c at forward drops",
        ),
        (
            "ip fw",
            "filter hook forward priority 10\n iifname \"eth0\" drop",
            "of chain ip fw c at forward drops",
        ),
        ("ip fw", "filter hook forward priority 10\n log\n reject", "of chain ip fw c at forward drops"),
        (
            "inet early",
            "filter hook prerouting priority raw\n tcp dport != 22 drop",
            "of chain inet early c at prerouting drops",
        ),
        (
            "netdev ddos",
            "filter hook ingress device eth0 priority 0; policy drop",
            "the policy of chain netdev ddos c at ingress drops",
        ),
    ];
    let lab = applied();
    says(&lab, "forward chains", "ok", "no chain of others");
    for (table, rest, words) in stopping {
        lab.network.nat.nft(&chain(table, &format!("type {rest}")));
        says(&lab, "forward chains", "fail", &format!("{words} {connects}; "));
        says(&lab, "forward chains", "fail", &format!("'nft -a list chain {table} c' shows it"));
        if words.contains("forward") {
            lab.network.nat.nft(&format!("insert rule {table} c ct status dnat accept"));
            says(&lab, "forward chains", "ok", "no chain of others");
        }
        lab.network.nat.nft(&format!("delete table {table}"));
    }
    for (rule, verdict, words) in [
        ("ip saddr 203.0.113.0/24 notrack", "ok", "no chain of others"),
        ("tcp dport 6379 notrack", "fail", "at prerouting keeps new connections from 198.51.100.27/32"),
        (
            "tcp sport 6379 notrack",
            "fail",
            "at prerouting keeps what 10.0.1.230:6379 answers to 198.51.100.27/32",
        ),
        ("limit rate 1/minute drop", "warn", "at prerouting may stop new connections"),
    ] {
        println!("{rule}");
        lab.network
            .nat
            .nft(&chain("ip early", &format!("type filter hook prerouting priority raw\n {rule}")));
        says(&lab, "forward chains", verdict, words);
        lab.network.nat.nft("delete table ip early");
    }

    // What a Red Hat keeps in /etc/sysconfig/iptables, which iptables-nft has no expression of nf_tables' own for.
    for (iptables, place, words) in [
        (
            Iptables::Nft,
            "chain ip filter FORWARD at forward drops",
            "'nft -a list chain ip filter FORWARD' shows it",
        ),
        (
            Iptables::Legacy,
            "rule 1 of chain FORWARD in table filter of iptables-legacy at forward drops",
            "'iptables-legacy -t filter -nvL FORWARD --line-numbers' shows it",
        ),
    ] {
        iptables.run(&lab.network.nat, "-A FORWARD -j REJECT --reject-with icmp-host-prohibited");
        says(&lab, "forward chains", "fail", place);
        says(&lab, "forward chains", "fail", words);
        iptables.run(&lab.network.nat, "-I FORWARD -m conntrack --ctstate DNAT -j ACCEPT");
        says(&lab, "forward chains", "ok", "no chain of others");
        iptables.run(&lab.network.nat, "-F FORWARD");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_foreign_redirect_of_our_port_is_named() {
    let lab = applied();
    let anew = || {
        lab.cachenat(&["remove"]).exits(0);
        lab.cachenat(&["apply"]).exits(0);
    };
    says(&lab, "nat chains", "ok", "no rule of others");
    // The rule that AWS's page has people type, and one as Docker writes them.
    lab.network.nat.nft("delete table ip nat");
    for (variant, chain) in [
        (Iptables::Nft, "chain ip nat PREROUTING"),
        (Iptables::Legacy, "chain PREROUTING in table nat of iptables-legacy"),
    ] {
        let iptables = |rule: &str| variant.run(&lab.network.nat, &format!("-t nat {rule}"));
        iptables("-N DOCKER");
        iptables("-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER");
        iptables("-A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80");
        anew();
        says(&lab, "nat chains", "ok", "no rule of others");
        iptables("-A PREROUTING -i eth0 -p tcp --dport 6380 -j DNAT --to-destination 10.0.1.231:6379");
        says(&lab, "nat chains", "fail", &format!("of {chain} leads 10.0.0.55:6380 elsewhere"));
        iptables("-F PREROUTING");
        iptables("-A PREROUTING -i docker0 -p tcp --dport 6380 -j DNAT --to-destination 10.0.1.231:6379");
        says(&lab, "nat chains", "ok", "no rule of others");
    }
    lab.network.nat.nft("delete table ip nat");

    lab.network.nat.nft(&chain(
        "ip younger",
        "type nat hook prerouting priority dstnat\n tcp dport 6000-6379 redirect to 22",
    ));
    says(&lab, "nat chains", "warn", "of chain ip younger c leads 10.0.0.55:6379 on as well");
    anew();
    says(
        &lab,
        "nat chains",
        "fail",
        "of chain ip younger c leads 10.0.0.55:6379 elsewhere before cachenat sees it",
    );
    lab.network.nat.nft("delete table ip younger");
    for (rule, verdict, words) in [
        ("tcp dport { 6379, 7000 } dnat to 10.0.1.9", "fail", "leads 10.0.0.55:6379 elsewhere"),
        ("ip saddr 192.0.2.0/24 tcp dport 6379 dnat to 10.0.1.9", "ok", "no rule of others"),
        (
            "ip saddr 198.51.100.0/24 tcp dport 6380 dnat to 10.0.1.9",
            "fail",
            "leads 10.0.0.55:6380 elsewhere",
        ),
        ("limit rate 1/minute tcp dport 6379 dnat to 10.0.1.9", "warn", "may lead 10.0.0.55:6379 elsewhere"),
        ("dnat to 10.0.1.9", "fail", "leads 10.0.0.55:6379 elsewhere"),
        ("ip daddr 10.0.0.99 tcp dport 6379 dnat to 10.0.1.9", "ok", "no rule of others"),
        ("udp dport 6379 redirect to 53", "ok", "no rule of others"),
        ("tcp dport 6379 counter", "ok", "no rule of others"),
    ] {
        println!("{rule}");
        lab.network.nat.nft(&chain("ip eager", &format!("type nat hook prerouting priority -101\n {rule}")));
        says(&lab, "nat chains", verdict, words);
        lab.network.nat.nft("delete table ip eager");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn strict_rp_filter_on_asymmetric_routes_is_reported() {
    let lab = applied();
    lab.network.nat.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    says(&lab, "rp_filter", "ok", "leads out by eth0");
    lab.network.nat.ip("link add eth1 type bridge\naddress add 10.0.9.1/24 dev eth1\nlink set eth1 up\n\
                        route add 198.51.100.0/24 dev eth1");
    says(&lab, "rp_filter", "fail", "the way back to 198.51.100.27/32 does not lead out by eth0");
    lab.network.nat.set_sysctl("net/ipv4/conf/all/rp_filter", "2");
    says(&lab, "rp_filter", "warn", "is loose");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_failed_source_is_named_with_its_reason() {
    let mut lab = applied();
    says(&lab, "source replication_group/my-cluster", "ok", "whole");
    lab.stop_api();
    lab.cachenat(&["apply"]).exits(3);
    says(&lab, "source replication_group/my-cluster", "fail", "forwards stay as they were");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn configuration_errors_are_findings() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), config.replace("198.51.100.27/32", "0.0.0.0/0")).unwrap();
    says(&lab, "clients", "warn", "0.0.0.0/0 allows any source address");
    says(&lab, "rp_filter", "ok", "leads out by eth0");

    fs::write(lab.config(), format!("{config}gateway: {{addresses: [10.0.0.56]}}\n")).unwrap();
    says(&lab, "gateway", "warn", "no interface of this host has 10.0.0.56");

    fs::write(lab.config(), format!("{config}nonsense: 1\n")).unwrap();
    says(&lab, "configuration", "fail", "nonsense");

    spell_out(&lab, &[(1, "10.0.1.230")]);
    let _socket = lab.network.nat.enter(|| TcpListener::bind("0.0.0.0:6400").unwrap());
    says(&lab, "listening", "warn", "programs of this host listen on 6400 of the pool");
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("{config}pins: {{local-001: 6400}}\n")).unwrap();
    says(&lab, "listening", "fail", "pins.local-001: port 6400 is taken on this host");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn unprivileged_check_covers_the_rest() {
    let lab = applied();
    let mut unprivileged = lab.operator_command("setpriv");
    unprivileged.arg("--bounding-set=-all").arg(programs::cachenat()).arg("check");
    let run = Run::from(unprivileged.output().unwrap()).exits(1);
    assert!(run.stdout.contains("fail  kernel: reading the ruleset needs CAP_NET_ADMIN"), "{}", run.stdout);
    assert!(run.stdout.contains("ok    nodes: 3 of 3 answer (Redis "), "{}", run.stdout);
}
