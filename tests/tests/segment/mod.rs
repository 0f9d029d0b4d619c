//! One network segment with a client, the gateway and nodes, for IPv4 and IPv6; a test controls both ends of each
//! connection.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::wait::wait_for;

/// The allowed client, and the gateway.
const CLIENT: [&str; 2] = ["198.51.100.27", "2001:db8::27"];
const GATEWAY: [&str; 2] = ["10.0.0.55", "2001:db8::55"];

/// How long a client waits for the RST after its flow was deleted.
const SOON: Duration = Duration::from_secs(10);

/// The segment and its permanent hosts.
pub(crate) struct Segment {
    wire: Namespace,
    pub(crate) client: Namespace,
    pub(crate) gateway: Namespace,
}

/// A host that listens on port 6379 of an IPv4 and an IPv6 address.
pub(crate) struct Node {
    port: String,
    listeners: [TcpListener; 2],
}

/// A connection, by both of its ends.
pub(crate) struct Connection {
    client: TcpStream,
    node: TcpStream,
}

impl Segment {
    pub(crate) fn new() -> Self {
        let wire = Namespace::new();
        wire.ip("link add wire type bridge mcast_snooping 0\nlink set wire up");
        let segment = Self { wire, client: Namespace::new(), gateway: Namespace::new() };
        segment.plug("client", &segment.client, CLIENT);
        segment.plug("gateway", &segment.gateway, GATEWAY);
        segment.gateway.set_sysctl("net/ipv4/ip_forward", "1");
        segment.gateway.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        segment
    }

    /// A new node at 10.0.1.`number` and 2001:db8:1::`number`.
    pub(crate) fn node(&self, number: u8) -> Node {
        let (host, port) = (Namespace::new(), format!("node{number}"));
        let addresses = [format!("10.0.1.{number}"), format!("2001:db8:1::{number}")];
        self.plug(&port, &host, addresses.each_ref().map(String::as_str));
        let listeners = addresses.map(|address| {
            let address = SocketAddr::new(address.parse().unwrap(), 6379);
            let listener = host.enter(|| TcpListener::bind(address).unwrap());
            listener.set_nonblocking(true).unwrap();
            listener
        });
        Node { port, listeners }
    }

    /// Everybody reaches everybody without a router.
    fn plug(&self, port: &str, host: &Namespace, [v4, v6]: [&str; 2]) {
        let path = host.path();
        self.wire.ip(&format!(
            "link add {port} type veth peer name eth0 netns {path}\nlink set {port} master wire up"
        ));
        host.set_sysctl("net/ipv6/conf/eth0/accept_dad", "0");
        host.set_sysctl("net/ipv4/conf/all/send_redirects", "0");
        host.set_sysctl("net/ipv4/conf/eth0/send_redirects", "0");
        host.ip(&format!(
            "address add {v4}/32 dev eth0\naddress add {v6}/128 dev eth0\nlink set eth0 up\n\
             route add default dev eth0\nroute add ::/0 dev eth0"
        ));
        // An address is tentative until the link has a carrier, and cannot be bound.
        let tentative = || run(host.command("ip").args(["-6", "address", "show", "tentative"]));
        wait_for("the link of a new host", || tentative().is_empty().then_some(()));
    }

    /// From now on the node is silent.
    pub(crate) fn kill(&self, node: &Node) {
        self.wire.ip(&format!("link set {} down", node.port));
    }

    /// Connects the client to `listen` and finds the other end at `node`.
    pub(crate) fn connect(&self, listen: &str, node: &Node) -> Connection {
        let client = self.dial(listen);
        let six = client.peer_addr().unwrap().is_ipv6();
        let node = wait_for(&format!("a connection to {listen} at {}", node.port), || node.accept(six));
        for stream in [&client, &node] {
            stream.set_read_timeout(Some(SOON)).unwrap();
        }
        Connection { client, node }
    }

    /// Connects the client to `listen`, wherever that leads.
    pub(crate) fn dial(&self, listen: &str) -> TcpStream {
        let listen = listen.parse().unwrap();
        self.client
            .enter(|| TcpStream::connect_timeout(&listen, SOON))
            .unwrap_or_else(|error| panic!("{listen}: {error}"))
    }
}

impl Node {
    fn accept(&self, six: bool) -> Option<TcpStream> {
        match self.listeners[usize::from(six)].accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                Some(stream)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{}: {error}", self.port),
        }
    }
}

impl Connection {
    /// Sends data in both directions.
    pub(crate) fn speak(&mut self) {
        let mut heard = [0];
        self.client.write_all(b"?").unwrap();
        self.node.read_exact(&mut heard).unwrap();
        self.node.write_all(b"!").unwrap();
        self.client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"!");
    }

    /// The client's next packet is answered by a RST, soon.
    pub(crate) fn is_reset(&mut self) {
        self.client.write_all(b"?").unwrap();
        let error = self.client.read(&mut [0]).expect_err("nobody answers");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }

    /// The source address that the node sees.
    pub(crate) fn source(&self) -> IpAddr {
        self.node.peer_addr().unwrap().ip()
    }
}
