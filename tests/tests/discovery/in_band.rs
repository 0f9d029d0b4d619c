//! Real servers that are asked themselves. They listen on loopback and announce the addresses of the example.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroU16,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use cachenat_tests::{fake_aws::Scenario, lab::wait::wait_for};
use discovery::{
    Also, Coverage, HostPort, Imds, Inventory, Options, RedisSeed, Secret, Seed, Source, TlsTrust,
};
use tempfile::TempDir;

use crate::setup::{Setup, show};

/// A redis-server or valkey-server that dies with this value.
struct Server {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts it and waits until it listens; it dies with the thread that started it, too.
    fn start(program: &str, port: u16, dir: TempDir, options: &[&str]) -> Self {
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            program,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(dir.path()).args(options).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}: run scripts/setup"));
        wait_for(program, || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { child, port, dir }
    }

    /// A cluster of one that has all slots and says that it is at 10.0.1.230:6379.
    fn cluster(program: &str, options: &[&str]) -> Self {
        let (port, bus) = (free_port(), free_port());
        let (port_text, bus) = (port.to_string(), bus.to_string());
        let mut words = vec!["--port", &port_text, "--cluster-enabled", "yes", "--cluster-port", &bus];
        words.extend(["--cluster-announce-ip", "10.0.1.230", "--cluster-announce-port", "6379"]);
        words.extend(options);
        let server = Self::start(program, port, TempDir::new().unwrap(), &words);
        server.say(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        wait_for("the cluster to be ok", || {
            server.say(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(())
        });
        server
    }

    /// What the server answers, unparsed.
    fn say(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let line = words.join(" ") + "\r\nQUIT\r\n";
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn seed(&self) -> RedisSeed {
        let address = format!("127.0.0.1:{}", self.port).parse().unwrap();
        RedisSeed { address, tls: None, username: None, password: None }
    }

    /// The id as discovery shortens it.
    fn id(&self) -> String {
        let answer = self.say(&["CLUSTER", "MYID"]);
        answer.lines().nth(1).unwrap().chars().take(12).collect()
    }
}

/// Each server that speaks the protocol and is installed; redis-server has to be.
fn programs() -> Vec<&'static str> {
    let valkey = Command::new("valkey-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if valkey { vec!["redis-server", "valkey-server"] } else { vec!["redis-server"] }
}

fn discover(seed: Seed) -> Inventory {
    Setup::new(Scenario::default()).discover(&[lab(seed)])
}

/// The servers here listen on whatever port is free, and announce another.
fn lab(seed: Seed) -> Source {
    Source::InBand {
        name: "lab".into(),
        seed,
        also: Also { ports: vec![port(6379)..=port(6379)], hosts: vec![] },
    }
}

fn port(port: u16) -> NonZeroU16 {
    port.try_into().unwrap()
}

fn error(seed: Seed) -> String {
    let found = discover(seed);
    assert_eq!((found.nodes.len(), found.sources[0].coverage), (0, Coverage::Nothing), "{}", show(&found));
    found.sources[0].error.clone().unwrap()
}

#[test]
fn a_cluster_lists_its_nodes() {
    for program in programs() {
        let server = Server::cluster(program, &[]);
        let engine = program.strip_suffix("-server").unwrap();
        let expected = format!(
            "lab-{} 0001 primary {engine} available [10.0.1.230]:6379\nin_band/lab complete\n",
            server.id()
        );
        assert_eq!(show(&discover(Seed::Redis(server.seed()))), expected);
    }
}

#[test]
fn an_announced_host_name_is_used() {
    let server = Server::cluster("redis-server", &["--cluster-announce-hostname", "node.example"]);
    let setup = Setup::new(Scenario::default());
    setup.dns.point("node.example", "10.0.1.240");
    let found = setup.discover(&[lab(Seed::Redis(server.seed()))]);
    assert_eq!(
        (found.nodes[0].host.as_str(), found.nodes[0].addresses[0].to_string().as_str()),
        ("node.example", "10.0.1.240")
    );
}

#[test]
fn cluster_slots_is_the_fallback() {
    let server = Server::cluster(
        "redis-server",
        &["--user", "default", "on", "nopass", "~*", "+@all", "-cluster|shards"],
    );
    assert!(server.say(&["CLUSTER", "SHARDS"]).contains("NOPERM"));
    let expected =
        format!("lab-{} 0001 primary redis available [10.0.1.230]:6379\nin_band/lab complete\n", server.id());
    assert_eq!(show(&discover(Seed::Redis(server.seed()))), expected);
}

#[test]
fn a_server_without_cluster_mode_is_one_node() {
    let port = free_port();
    let server = Server::start("redis-server", port, TempDir::new().unwrap(), &["--port", &port.to_string()]);
    let found = discover(Seed::Redis(server.seed()));
    let node = &found.nodes[0];
    assert_eq!((found.nodes.len(), node.id.as_str(), node.port.get()), (1, "lab", port));
    // Loopback is no target, wherever it comes from.
    assert_eq!(node.error.as_deref(), Some("127.0.0.1: refused: 127.0.0.1 is a loopback address"));
}

#[test]
fn a_seed_without_slots_is_not_trusted() {
    let server = Server::cluster("redis-server", &[]);
    server.say(&["CLUSTER", "DELSLOTSRANGE", "100", "16383"]);
    let found = discover(Seed::Redis(server.seed()));
    assert_eq!(found.sources[0].coverage, Coverage::Part);
    assert!(found.sources[0].error.as_ref().unwrap().contains("sees 100 of 16384 slots"), "{}", show(&found));
}

#[test]
fn a_wrong_password_is_reported_but_not_shown() {
    let server = Server::cluster("redis-server", &["--user", "reader", "on", ">s3cret", "~*", "+@all"]);
    server.say(&["CONFIG", "SET", "requirepass", "other"]);
    let file = server.dir.path().join("password");
    let seed = |username: Option<&str>| RedisSeed {
        username: username.map(str::to_owned),
        password: Some(Secret::File(file.clone())),
        ..server.seed()
    };
    assert!(error(Seed::Redis(server.seed())).contains("CLUSTER SHARDS: NOAUTH"));
    std::fs::write(&file, "s3cret\n").unwrap();
    assert_eq!(discover(Seed::Redis(seed(Some("reader")))).nodes.len(), 1);
    let refused = error(Seed::Redis(seed(None)));
    assert!(refused.contains("AUTH: WRONGPASS") && !refused.contains("s3cret"), "{refused}");
    std::fs::remove_file(&file).unwrap();
    let missing = error(Seed::Redis(seed(None)));
    assert!(missing.contains("the password in ") && missing.contains("No such file"), "{missing}");
    let seed = RedisSeed { password: Some(Secret::Env("CACHENAT_NO_SUCH".into())), ..server.seed() };
    assert_eq!(error(Seed::Redis(seed)), "the password in $CACHENAT_NO_SUCH: environment variable not found");
}

/// Redis quotes a command that it does not know, with its arguments; a proxy in front of it may do so as well.
#[test]
fn a_quoted_password_is_redacted() {
    let server = Server::cluster("redis-server", &["--rename-command", "AUTH", ""]);
    let file = server.dir.path().join("password");
    std::fs::write(&file, "s3cret").unwrap();
    for username in [None, Some("reader".to_owned())] {
        let seed = RedisSeed { username, password: Some(Secret::File(file.clone())), ..server.seed() };
        let refused = error(Seed::Redis(seed));
        assert!(refused.ends_with("AUTH: ERR"), "{refused}");
    }
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.write_all(b"AUTH s3cret\r\n").unwrap();
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).contains("s3cret"), "it does quote it");
}

/// A certificate for `name`, signed by itself, as `cert.pem` and `key.pem`.
fn certificate(dir: &Path, name: &str) {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", "/CN=lab", "-addext", &format!("subjectAltName=DNS:{name}")]);
    // What signs may not serve (RFC 5280, 4.2.1.9), but a root need not say that it signs.
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(dir);
    let made = openssl.output().expect("openssl is there: run scripts/setup");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn tls_checks_the_authority_and_the_name() {
    let dir = TempDir::new().unwrap();
    certificate(dir.path(), "node.example");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ca, key, port) = (file("cert.pem"), file("key.pem"), free_port());
    let port_text = port.to_string();
    let bus = free_port().to_string();
    let mut words =
        vec!["--port", "0", "--tls-port", &port_text, "--tls-cert-file", &ca, "--tls-key-file", &key];
    words.extend(["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no", "--cluster-enabled", "yes"]);
    words.extend(["--tls-cluster", "yes", "--cluster-port", &bus, "--cluster-announce-ip", "10.0.1.230"]);
    let server = Server::start("redis-server", port, dir, &words);

    let seed = |ca_file: Option<&str>, name: &str| {
        let tls = TlsTrust { ca_file: ca_file.map(Into::into), server_name: Some(name.into()) };
        Seed::Redis(RedisSeed { tls: Some(tls), ..server.seed() })
    };
    let found = discover(seed(Some(&ca), "node.example"));
    assert_eq!(found.nodes.len(), 1, "{}", show(&found));
    assert_eq!((found.nodes[0].tls, found.nodes[0].port.get()), (true, port));
    let unknown = error(seed(None, "node.example"));
    assert!(unknown.contains("invalid peer certificate"), "{unknown}");
    let misnamed = error(seed(Some(&ca), "other.example"));
    assert!(misnamed.contains("not valid for name"), "{misnamed}");
    let missing = error(seed(Some("/nonexistent/ca.pem"), "node.example"));
    assert!(missing.starts_with("the certificates in /nonexistent/ca.pem: "), "{missing}");
}

/// A server that answers every connection with this text once it was asked, and then is silent or ends.
fn responder(answer: &'static str) -> HostPort {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 256]);
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    address.to_string().parse().unwrap()
}

#[test]
fn elasticache_memcached_lists_its_nodes() {
    let seed = responder(
        "CONFIG cluster 0 133\r\n12\n\
         sessions.abc123.0001.use2.cache.amazonaws.com|10.0.1.240|11211 \
         sessions.abc123.0002.use2.cache.amazonaws.com|10.0.1.241|11211\n\r\nEND\r\n",
    );
    let setup = Setup::new(Scenario::default());
    for (node, address) in [(1, "10.0.1.240"), (2, "10.0.1.241")] {
        setup.dns.point(&cachenat_tests::fake_aws::shapes::memcached_host("sessions", node), address);
    }
    let expected = "\
sessions-0001 - - memcached available [10.0.1.240]:11211
sessions-0002 - - memcached available [10.0.1.241]:11211
in_band/lab complete
";
    let also = Also { ports: vec![port(11211)..=port(11211)], hosts: vec![] };
    let source = Source::InBand { name: "lab".into(), seed: Seed::Memcached(seed), also };
    assert_eq!(show(&setup.discover(&[source])), expected);
}

#[test]
fn plain_memcached_is_refused_with_a_remedy() {
    let port = free_port();
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "memcached",
        "-u",
        "root",
        "-l",
        "127.0.0.1",
        "-p",
        &port.to_string(),
    ]);
    let mut memcached = command.spawn().unwrap();
    wait_for("memcached", || TcpStream::connect(("127.0.0.1", port)).ok());
    let error = error(Seed::Memcached(format!("127.0.0.1:{port}").parse().unwrap()));
    memcached.kill().unwrap();
    memcached.wait().unwrap();
    assert!(error.ends_with("only ElastiCache's does: list its nodes as static"), "{error}");
}

#[test]
fn nonsense_silence_and_closed_ports_are_distinguished() {
    let redis = |address| Seed::Redis(redis(address));
    let nonsense = error(redis(responder("HTTP/1.1 400 Bad Request\r\n\r\n")));
    assert!(nonsense.ends_with("the answer makes no sense: it is no RESP2"), "{nonsense}");
    let half = error(Seed::Memcached(responder("CONFIG cluster 0 9\r\n1\na|")));
    assert!(half.contains("it ends before its END"), "{half}");
    let closed = error(redis(format!("127.0.0.1:{}", free_port()).parse().unwrap()));
    assert!(closed.contains("Connection refused"), "{closed}");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = silent.local_addr().unwrap();
    assert!(error(redis(address.to_string().parse().unwrap())).ends_with("no answer in time"));
    let unnamed = error(redis("nowhere.example:6379".parse().unwrap()));
    assert_eq!(unnamed, "nowhere.example: no such name (NXDOMAIN)");
}

fn redis(address: HostPort) -> RedisSeed {
    RedisSeed { address, tls: None, username: None, password: None }
}

/// A name server that is not honest must not get the password sent to where it likes.
#[test]
fn a_refused_address_never_gets_the_password() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let setup = Setup::new(Scenario::default());
    for (address, reason) in [
        ("198.51.100.9", "198.51.100.9 is outside the VPC and not private"),
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("169.254.169.254", "169.254.169.254 is an AWS instance service (metadata, DNS or time)"),
    ] {
        setup.dns.point("cache.example", address);
        let port = listener.local_addr().unwrap().port();
        let seed = RedisSeed {
            password: Some(Secret::Env("PATH".into())),
            ..redis(format!("cache.example:{port}").parse().unwrap())
        };
        let found = setup.discover(&[lab(Seed::Redis(seed))]);
        let error = found.sources[0].error.clone().unwrap();
        assert_eq!(error, format!("cache.example:{port}: refused: {reason}"));
    }
    assert!(listener.accept().is_err(), "nothing connected");
}

#[test]
fn a_node_on_another_port_needs_an_opt_in() {
    let server = Server::cluster("redis-server", &[]);
    let source = |ports| Source::InBand {
        name: "lab".into(),
        seed: Seed::Redis(server.seed()),
        also: Also { ports, hosts: vec![] },
    };
    let found = Setup::new(Scenario::default()).discover(&[source(vec![])]);
    let expected = format!(
        "in_band/lab partial: lab-{}: announced on port 6379, not on the seed's {}; if it is right, add the port to \
         also_ports\n",
        server.id(),
        server.port
    );
    assert_eq!((show(&found), found.sources[0].coverage), (expected, Coverage::Part));
    let found = Setup::new(Scenario::default()).discover(&[source(vec![port(6000)..=port(7000)])]);
    assert_eq!(found.nodes.len(), 1, "{}", show(&found));
}

#[test]
fn a_node_outside_the_vpc_needs_an_opt_in() {
    let server = Server::cluster("redis-server", &["--cluster-announce-ip", "172.17.0.1"]);
    let source = |hosts: Vec<&str>| Source::InBand {
        name: "lab".into(),
        seed: Seed::Redis(server.seed()),
        also: Also {
            ports: vec![port(6379)..=port(6379)],
            hosts: hosts.into_iter().map(|range| range.parse().unwrap()).collect(),
        },
    };
    let setup = Setup::new(Scenario {
        imds: Some(cachenat_tests::fake_aws::shapes::instance("subnet-0public")),
        ..Scenario::default()
    });
    let options = || Options { imds: Imds::at(setup.aws.url()), ..setup.options() };
    let found = show(&setup.discover_with(&[source(vec![])], &options()));
    let refusal = "172.17.0.1 was announced in band and is outside the VPC; if it is right, add its range to also_hosts";
    assert!(found.contains(&format!("[]:6379 ! 172.17.0.1: refused: {refusal}")), "{found}");
    let found = setup.discover_with(&[source(vec!["172.17.0.0/24"])], &options());
    assert!(found.is_complete(), "{}", show(&found));
}

/// Strings that are each short enough, and more of them than there is memory.
#[test]
fn an_endless_answer_is_refused_early() {
    let address = serve(|mut connection| {
        let string = [b"$1048576\r\n".as_slice(), &[b'x'; 1 << 20], b"\r\n"].concat();
        let _ = connection.write_all(b"*90000\r\n");
        while connection.write_all(&string).is_ok() {}
    });
    let endless = error(Seed::Redis(redis(address)));
    assert!(endless.ends_with("the answer makes no sense: the answer is longer than 8 MiB"), "{endless}");
}

/// Each byte comes in time, and the answer never.
#[test]
fn a_slow_drip_hits_the_deadline() {
    for seed in [|address| Seed::Redis(redis(address)), Seed::Memcached] {
        let address = serve(|mut connection| {
            while connection.write_all(b"*").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let setup = Setup::new(Scenario::default());
        let options = Options { in_band_deadline: Duration::from_millis(500), ..setup.options() };
        let found = setup.discover_with(&[lab(seed(address))], &options);
        let error = found.sources[0].error.clone().unwrap();
        assert!(error.ends_with("no answer in time"), "{error}");
    }
}

#[test]
fn a_pipe_is_refused_without_blocking() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("password");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let address = serve(drop);
    let seed = RedisSeed { password: Some(Secret::File(pipe)), ..redis(address) };
    let refused = error(Seed::Redis(seed));
    assert!(refused.ends_with("it is not a plain file"), "{refused}");
    let trust = TlsTrust { ca_file: Some(dir.path().join("password")), server_name: None };
    let refused = error(Seed::Redis(RedisSeed { tls: Some(trust), ..redis(serve(drop)) }));
    assert!(
        refused.starts_with("the certificates in ") && refused.ends_with("not a plain file"),
        "{refused}"
    );
}

/// A server that does this with each connection.
fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> HostPort {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}
