use std::os::unix::fs::PermissionsExt as _;

use super::*;
use expect_test::expect;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("config.yaml"), text.to_owned())
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

const SMALLEST: &str = "clients: [198.51.100.27]\nsources: [{replication_group: my-cluster}]\n";

#[test]
fn the_smallest_file_has_the_documented_defaults() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!(config.clients, [vec![network("198.51.100.27/32")]]);
    assert_eq!(config.gateway, GatewayConfig::default());
    assert_eq!(config.ports.to_string(), "6379-7378");
    assert_eq!(config.on_move, OnGone::Cut);
    assert_eq!(config.state_dir, Path::new("/var/lib/cachenat"));
    assert_eq!(config.sysctl_dir, Path::new("/etc/sysctl.d"));
    assert_eq!(config.lock_file, Path::new("/run/cachenat.lock"));
}

#[test]
fn every_key_of_the_contract_is_read() {
    let text = "
clients: [198.51.100.27/32, 2001:db8::/32]
gateway: {interface: ens5, addresses: [10.0.0.55], public_address: 203.0.113.73, snat: masquerade}
ports: 6379-7378
aws: {region: us-east-2}
sources:
  - {replication_group: my-cluster, expose: [nodes, reader], ports: 6379-6478}
  - cache_cluster: sessions
  - serverless_cache: carts
  - {tags: {Environment: dev}, expose: all}
  - in_band: {name: lab, redis: '10.0.1.230:6379', tls: true, username: reader, password_env: LAB_PASSWORD}
  - in_band: {name: mem, memcached: '10.0.1.240:11211'}
  - static: {name: local, nodes: [{id: local-001, host: 10.0.1.230, port: 6379}]}
pins: {my-cluster-001: 6379}
on_move: drain
state_dir: /tmp/state
sysctl_dir: /tmp/sysctl.d
lock_file: /tmp/lock
";
    let config = parse(text).unwrap();
    let names: Vec<String> = config.sources.iter().map(|source| source.source.name().to_string()).collect();
    assert_eq!(
        names,
        [
            "replication_group/my-cluster",
            "cache_cluster/sessions",
            "serverless_cache/carts",
            "tags/Environment=dev",
            "in_band/lab",
            "in_band/mem",
            "static/local"
        ]
    );
    assert_eq!(config.gateway.snat, SnatConfig::Masquerade);
    assert_eq!(config.region.as_deref(), Some("us-east-2"));
    assert_eq!(config.on_move, OnGone::Drain);
    let plan = config.plan(&[]);
    let own = plan.sources.iter().map(|source| (source.ports.is_some(), source.is_asked));
    assert_eq!(own.take(2).collect::<Vec<_>>(), [(true, true), (false, true)]);
}

#[test]
fn a_flowtable_is_wanted_only_where_it_is_asked_for() {
    let flowtable = |gateway: &str| {
        parse(&format!("clients: [198.51.100.27]\ngateway: {{{gateway}}}\n"))
            .map(|config| config.gateway.flowtable)
    };
    assert_eq!(
        ["", "flowtable: false", "flowtable: true"].map(|text| flowtable(text).unwrap()),
        [false, false, true]
    );
    expect![[r#"config.yaml:2: gateway.flowtable: found "fast"; write true or false"#]]
        .assert_eq(&flowtable("flowtable: fast").unwrap_err().to_string());
}

#[test]
fn several_mistakes_are_told_in_one_go_with_line_key_and_remedy() {
    expect![[r#"
        12 mistakes in config.yaml
          config.yaml:1: clients[0]: 198.51.100.27/24 has bits behind its prefix; write 198.51.100.0/24 for the network or 198.51.100.27/32 for the one address
          config.yaml:1: clients[1]: found "nobody"; write an address or network, such as 198.51.100.27 or 198.51.100.0/24
          config.yaml:3: gateway.interfce: unknown key; did you mean interface?
          config.yaml:4: gateway.snat: found "maybe"; write auto, masquerade, off, an address of the gateway or several, or addresses by interface: {eth0: 10.0.0.55, eth1: 10.0.1.55}
          config.yaml:5: ports: the pool 20-30 takes port 22, the way into this host (SSH); choose a range without 22, such as 6379-7378
          config.yaml:7: sources[0].replication_group: found "my cluster"; write the cache's identifier, such as my-cluster
          config.yaml:8: sources[1]: several kinds of source in one entry; write one of replication_group, cache_cluster, serverless_cache, tags, in_band, static
          config.yaml:12: sources[2].static.nodes[0].port: found 0; write a port from 1 to 65535
          config.yaml:13: sources[2].static.nodes[1].id: found "b c"; write up to 120 letters, digits and -_./:
          config.yaml:14: pins.a: port 22 is the way into this host (SSH); pin it to another port
          config.yaml:14: pins.c: port 7000 is also pinned to b; pin each to a port of its own
          config.yaml:15: state_dir: found "here"; write an absolute path"#]].assert_eq(&error(
        "clients: [198.51.100.27/24, nobody]
gateway:
  interfce: eth0
  snat: maybe
ports: 20-30
sources:
  - replication_group: my cluster
  - {cache_cluster: a, serverless_cache: b}
  - static:
      name: local
      nodes:
        - {id: a, host: 10.0.1.1, port: 0}
        - {id: b c, host: 10.0.1.1, port: 6379}
pins: {a: 22, b: 7000, c: 7000}
state_dir: here
",
    ));
}

fn network(text: &str) -> Client {
    Client::Network(text.parse().unwrap())
}

#[test]
fn a_client_may_be_a_name_or_a_file() {
    let config = parse(
        "clients: [198.51.100.27, {dns: Home.Example.net.}, {file: /etc/cachenat/ci.txt}]
clients_keep: 2h
on_client_gone: drain
",
    )
    .unwrap();
    let expected = [
        network("198.51.100.27/32"),
        Client::Name("home.example.net".to_owned()),
        Client::File("/etc/cachenat/ci.txt".into()),
    ];
    assert_eq!(config.clients, [expected.to_vec()]);
    assert_eq!((config.clients_keep.as_secs(), config.on_client_gone), (7200, OnGone::Drain));
    for (client, words) in [
        (
            "{dns: localhost}",
            "clients[0].dns: found \"localhost\"; write a domain name, such as home.example.net",
        ),
        ("{dns: 198.51.100.27}", "clients[0].dns: found"),
        ("{file: ci.txt}", "clients[0].file: found \"ci.txt\"; write an absolute path"),
        (
            "{dns: a.example, file: /b}",
            "clients[0]: a client is one thing; write a network, {dns: NAME} or {file: PATH}",
        ),
        ("{name: a.example}", "clients[0].name: unknown key"),
    ] {
        let refused = error(&format!("clients: [{client}]\n"));
        assert!(refused.contains(words), "{refused}");
    }
    let refused = error("clients: [{dns: a.example}]\nclients_keep: forever\n");
    assert!(refused.contains("clients_keep: found \"forever\"; write a time from 0s to 720h"), "{refused}");
}

#[test]
fn sources_with_equal_clients_share_a_list() {
    let config = parse(
        "clients: [198.51.100.0/25, 198.51.100.128/25]
sources:
  - {replication_group: a}
  - {replication_group: b, clients: [198.51.100.28]}
  - {replication_group: c, clients: [198.51.100.0/24]}
  - {replication_group: d, clients: ['198.51.100.28/32']}
",
    )
    .unwrap();
    let lists = config.sources.iter().map(|source| source.list);
    assert_eq!(lists.collect::<Vec<_>>(), [0, 1, 0, 1]);
    assert_eq!(config.clients.len(), 2);
    let many: String = (1..=16)
        .map(|last| format!("  - {{cache_cluster: m-{last}, clients: [192.0.2.{last}]}}\n"))
        .collect();
    expect![["config.yaml:3: sources: 17 different lists of clients; write 16 at most; sources with equal lists share one"]]
        .assert_eq(&error(&format!("clients: [198.51.100.27]\n\nsources:\n{many}")));
    expect!["config.yaml:2: sources[0].clients: nobody may connect; name at least one client, such as 198.51.100.27/32"]
        .assert_eq(&error("clients: [198.51.100.27]\nsources: [{cache_cluster: m, clients: []}]\n"));
}

#[test]
fn clients_come_in_by_one_interface_or_several() {
    let interface = |value: &str| {
        parse(&format!("{SMALLEST}gateway: {{interface: {value}}}\n")).map(|config| config.gateway.interface)
    };
    let names = |names: &[&str]| Auto::Set(names.iter().map(|name| name.parse().unwrap()).collect());
    assert_eq!(interface("auto").unwrap(), Auto::Auto);
    assert_eq!(interface("ens5").unwrap(), names(&["ens5"]));
    assert_eq!(interface("[eth0, eth2]").unwrap(), names(&["eth0", "eth2"]));
    let twice = interface("[eth0, eth0]").unwrap_err().to_string();
    assert!(twice.contains("gateway.interface[1]: eth0 is listed twice"), "{twice}");
}

#[test]
fn snat_may_differ_by_interface() {
    let snat = |value: &str| parse(&format!("{SMALLEST}gateway: {{snat: {value}}}\n"));
    let SnatConfig::ByInterface(found) =
        snat("{eth0: 10.0.0.55, eth1: [10.0.1.55, 10.0.1.56]}").unwrap().gateway.snat
    else {
        panic!("a mapping is by interface")
    };
    let found: Vec<String> = found.iter().map(|(name, addresses)| format!("{name}: {addresses:?}")).collect();
    assert_eq!(found, ["eth0: [10.0.0.55]", "eth1: [10.0.1.55, 10.0.1.56]"]);
    for (value, words) in [
        ("{eth0: masquerade}", "gateway.snat.eth0: found \"masquerade\"; write an address of the gateway"),
        ("{'a b': 10.0.0.55}", "write an interface's name, such as eth1"),
    ] {
        let refused = snat(value).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn snat_is_one_address_or_several() {
    let snat = |value: &str| parse(&format!("{SMALLEST}gateway: {{snat: {value}}}\n"));
    let addresses =
        |texts: &[&str]| SnatConfig::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect());
    assert_eq!(snat("10.0.0.55").unwrap().gateway.snat, addresses(&["10.0.0.55"]));
    let several = ["10.0.0.55", "10.0.0.56", "2001:db8::55"];
    assert_eq!(snat("[10.0.0.55, 10.0.0.56, '2001:db8::55']").unwrap().gateway.snat, addresses(&several));
    for (value, words) in [
        ("[10.0.0.55, 10.0.0.55]", "an address is listed twice; write each once"),
        ("[10.0.0.55, masquerade]", "snat[1]: found \"masquerade\"; write an address of the gateway"),
    ] {
        let refused = snat(value).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn several_gateway_addresses_have_a_public_one_each_and_pins_may_name_them() {
    let text = "clients: [198.51.100.27]
gateway:
  addresses: [10.0.0.55, 10.0.0.56]
  public_address: {10.0.0.55: 203.0.113.73, 10.0.0.56: 203.0.113.74}
sources: [{replication_group: my-cluster}]
pins: {my-cluster-001: 10.0.0.56:6379, my-cluster-002: 6379}
";
    let config = parse(text).unwrap();
    assert!(config.gateway.several_addresses().is_some());
    let pins: Vec<String> = config.pins.values().map(ToString::to_string).collect();
    assert_eq!(pins, ["10.0.0.56:6379", "10.0.0.55:6379"]);
    assert_eq!(parse(SMALLEST).unwrap().gateway.several_addresses(), None);

    expect![[r#"
        5 mistakes in config.yaml
          config.yaml:3: gateway.addresses: 2 IPv4 and 1 IPv6 addresses; name as many of each, as a node gets one of both, or leave one family out
          config.yaml:4: gateway.public_address: 10.0.0.57 is not among gateway.addresses; add it there, or take it away here
          config.yaml:4: gateway.public_address: 10.0.0.56 has none; add 10.0.0.56: and the Elastic IP that is associated with it
          config.yaml:6: pins.a: 10.0.0.57 is not one of several gateway.addresses that leases go by; write one that is, or 6379 alone
          config.yaml:6: pins.c: port 10.0.0.55:6379 is also pinned to b; pin each to a port of its own"#]].assert_eq(&error(
        "clients: [198.51.100.27]
gateway:
  addresses: [10.0.0.55, 10.0.0.56, 'fd00::55']
  public_address: {10.0.0.55: 203.0.113.73, 10.0.0.57: 203.0.113.74}
sources: [{replication_group: my-cluster}]
pins: {a: '10.0.0.57:6379', b: 6379, c: '10.0.0.55:6379'}
",
    ));
    expect!["config.yaml:4: gateway.public_address: 203.0.113.73 can't lead to several gateway.addresses; write one for each, such as {10.0.0.55: 203.0.113.73, 10.0.0.56: 203.0.113.74}"]
        .assert_eq(&error(&text.replace("{10.0.0.55: 203.0.113.73, 10.0.0.56: 203.0.113.74}", "203.0.113.73")));
}

#[test]
fn missing_and_misspelt_keys_name_what_is_wanted() {
    expect![[r#"
        2 mistakes in config.yaml
          config.yaml:1: client: unknown key; did you mean clients?
          config.yaml:1: clients is missing; add clients: a list of addresses or networks, such as [198.51.100.27/32]"#]].assert_eq(&error("client: [198.51.100.27]\n"));
    expect!["config.yaml:1: clients: nobody may connect; name at least one client, such as 198.51.100.27/32"]
        .assert_eq(&error("clients: []\nsources: []\n"));
    expect![[r#"
        2 mistakes in config.yaml
          config.yaml:1: found nothing; write a mapping with the keys clients, clients_keep, on_client_gone, gateway, ports, aws, sources, pins, on_move, removal_guard, state_dir, sysctl_dir, lock_file
          config.yaml:1: clients is missing; add clients: a list of addresses or networks, such as [198.51.100.27/32]"#]].assert_eq(&error(""));
    expect![[r#"
        2 mistakes in config.yaml
          config.yaml:1: clients: found a mapping; write a list of addresses or networks, such as [198.51.100.27/32]
          config.yaml:2: sources: found 7; write a list, such as [{replication_group: my-cluster}]"#]].assert_eq(&error("clients: {a: 1}\nsources: 7\n"));
}

#[test]
fn what_is_no_yaml_is_told_with_its_line() {
    expect!["config.yaml:2: did not find expected ',' or ']' at line 2 column 8, while parsing a flow sequence at line 1 column 10; the file must be YAML, see cachenat(1)"].assert_eq(&error("clients: [198.51.100.27\nsources: []\n"));
    expect![[r#"config.yaml:1: duplicate entry with key "clients"; the file must be YAML, see cachenat(1)"#]]
        .assert_eq(&error("clients: [198.51.100.27]\nclients: [198.51.100.28]\n"));
}

#[test]
fn a_pin_inside_another_sources_own_pool_is_refused() {
    let text = "clients: [198.51.100.27]
sources:
  - {replication_group: one, ports: 7000-7099}
  - {replication_group: two, ports: 7100-7199}
pins:
  two-001: 7005
";
    expect!["config.yaml:6: pins.two-001: port 7005 lies in the pool 7000-7099 of sources[0] (replication_group/one); pin two-001 to a port outside 7000-7099, or move that pool"].assert_eq(&error(text));
    parse(&text.replace("7005", "7105")).unwrap();
    parse(&text.replace("7005", "6379")).unwrap();
}

#[test]
fn the_same_source_or_target_twice_is_refused() {
    expect![[r#"
        3 mistakes in config.yaml
          config.yaml:4: sources[1]: replication_group/one stands here twice; name each source once
          config.yaml:5: sources[2].static.nodes[1]: a and b are both h:1; give each node an address and port of its own
          config.yaml:5: sources[2]: the id a stands here twice; give each node an id of its own"#]].assert_eq(&error(
        "clients: [198.51.100.27]
sources:
  - {replication_group: one}
  - {replication_group: one, ports: 7000-7099}
  - static: {name: s, nodes: [{id: a, host: h, port: 1}, {id: b, host: h, port: 1}, {id: a, host: i, port: 1}]}
",
    ));
}

#[test]
fn a_pin_that_this_host_listens_on_is_named() {
    let config = parse(
        "clients: [198.51.100.27]
sources:
  - {replication_group: one, ports: 7000-7099}
pins:
  one-001: 8000
",
    )
    .unwrap();
    let listening = [(7001, "a process on ::"), (8000, "nginx (pid 9) on ::")];
    let listening =
        listening.iter().map(|&(port, who)| (NonZeroU16::new(port).unwrap(), who.to_owned())).collect();
    expect![[r#"config.yaml:5: pins.one-001: port 8000 is taken on this host: nginx (pid 9) on :: listens on it; pin one-001 to another port, or move that service"#]].assert_eq(&config.check_pins(&listening).unwrap_err().to_string());
    let uses = |port| config.plan(&[]).uses(NonZeroU16::new(port).unwrap());
    assert!(uses(8000) && !uses(8001));
}

#[test]
fn the_aws_words_for_everybody_are_taken_only_when_written_out() {
    assert_eq!(
        parse(&SMALLEST.replace("198.51.100.27", "0.0.0.0/0")).unwrap().clients[0],
        [network("0.0.0.0/0")]
    );
    assert!(parse(&SMALLEST.replace("[198.51.100.27]", "any")).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_panics_the_reader(text in "(clients|sources|ports|pins|gateway|[a-z0-9:{}\\[\\],\" \n-]{0,12}|: |\n){0,20}") {
        let _ = parse(&text);
    }
}

#[test]
fn in_band_nodes_elsewhere_are_opted_in() {
    let parsed = |also: &str| {
        let text = format!(
            "clients: [198.51.100.27]\nsources:\n  - in_band: {{name: lab, redis: '10.0.1.230:6379', {also}}}\n"
        );
        parse(&text).map(|config| match config.sources[0].source.clone() {
            Source::InBand { also, .. } => also,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(parsed("").unwrap(), discovery::Also::default());
    let also = parsed("also_ports: [6380, 7000-7005], also_hosts: 10.9.0.0/16").unwrap();
    let port = |port: u16| port.try_into().unwrap();
    assert_eq!(also.ports, [port(6380)..=port(6380), port(7000)..=port(7005)]);
    assert_eq!(also.hosts, ["10.9.0.0/16".parse().unwrap()]);
    let wrong = |also: &str| parsed(also).unwrap_err().to_string();
    expect![[r#"config.yaml:3: sources[0].in_band.also_ports[0]: found "9-8"; write a port or a range of ports, such as 6380 or 7000-7005"#]]
        .assert_eq(&wrong("also_ports: [9-8]"));
    expect![[r#"config.yaml:3: sources[0].in_band.also_hosts: 10.9.0.1/16 has bits behind its prefix; write 10.9.0.0/16 for the network or 10.9.0.1/32 for the one address"#]]
        .assert_eq(&wrong("also_hosts: 10.9.0.1/16"));
}

#[test]
fn a_password_in_clear_text_is_warned_of() {
    let warnings = |seed: &str, tls: &str| {
        let text = format!(
            "clients: [198.51.100.27]\nsources:\n  - in_band: {{name: lab, redis: '{seed}', password_env: LAB{tls}}}\n"
        );
        crate::inventory::clear_text_passwords(&parse(&text).unwrap()).collect::<Vec<String>>()
    };
    assert_eq!(warnings("10.0.1.230:6379", ", tls: true"), Vec::<String>::new());
    assert_eq!(warnings("127.0.0.1:6379", ""), Vec::<String>::new(), "a tunnel's local end");
    let warning = "in_band/lab: its password goes to 10.0.1.230:6379 in clear text; add tls: true to the source if the \
                   cache speaks TLS";
    assert_eq!(warnings("10.0.1.230:6379", ""), [warning]);
}

#[test]
fn what_yaml_takes_for_a_number_or_a_truth_value_is_to_be_quoted() {
    let tags = |tags: &str| {
        let text = format!("clients: [198.51.100.27]\nsources:\n  - tags: {{{tags}}}\n");
        parse(&text).map(|config| config.sources[0].source.name().to_string())
    };
    assert_eq!(tags("Version: '1.10', Since: 2026-11-26").unwrap(), "tags/Since=2026-11-26,Version=1.10");
    let expected = |what: &str, key: &str| {
        format!(
            "config.yaml:3: sources[0].tags{key}: YAML takes {what}; quote it, so that every character counts"
        )
    };
    for (text, what, key) in [
        ("Version: 1.10", "this for the number 1.1", ".Version"),
        ("Team: 0x2A", "this for the number 42", ".Team"),
        ("Live: true", "this for the truth value true", ".Live"),
        ("1.10: live", "the key 1.1 for a number or a truth value", ""),
    ] {
        let error = tags(text).unwrap_err().to_string();
        assert!(error.contains(&expected(what, key)), "{error}");
    }
    let other = |text: &str| error(&format!("clients: [198.51.100.27]\n{text}\n"));
    assert!(other("sources: [{replication_group: 1e3}]").contains("quote it"));
    assert!(other("pins: {7: 6379}").contains("pins"));
    assert!(other("on_move: true").contains("truth value"));
    parse("clients: [198.51.100.27]\nports: 6379\nremoval_guard: off\npins: {a: 6379}\n").unwrap();
}

#[test]
fn an_ipv4_client_that_is_written_as_ipv6_is_that_client() {
    let clients = |text: &str| parse(&SMALLEST.replace("198.51.100.27", text)).map(|config| config.clients);
    for mapped in ["'::ffff:198.51.100.27'", "'::ffff:198.51.100.27/128'", "'::ffff:c633:641b'"] {
        assert_eq!(clients(mapped).unwrap()[0], [network("198.51.100.27/32")], "{mapped}");
    }
    assert_eq!(clients("'::ffff:198.51.100.0/120'").unwrap()[0], [network("198.51.100.0/24")]);
    assert_eq!(clients("'::/0'").unwrap()[0], [network("::/0")]);
}

#[test]
fn files_that_everybody_can_write_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let [config, password] = ["config.yaml", "password"].map(|name| dir.path().join(name));
    std::fs::write(&password, "secret").unwrap();
    let text = format!(
        "clients: [198.51.100.27]\nsources:\n  - in_band: {{name: lab, redis: '10.0.1.230:6379', password_file: {}}}\n",
        password.display()
    );
    std::fs::write(&config, text).unwrap();
    let found =
        || -> Vec<PathBuf> { Config::read(&config).unwrap().writable_by_all().map(Path::to_owned).collect() };
    assert_eq!(found(), Vec::<PathBuf>::new());
    for file in [&config, &password] {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    assert_eq!(found(), [config.clone(), password.clone()]);
}
