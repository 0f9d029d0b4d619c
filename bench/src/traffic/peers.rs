//! The programs that forward packets to nodes, each set up according to its manual.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cachenat_tests::programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wires::{Gateway, Wires};
use crate::data::{FIRST_PORT, Nodes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Routing,
    Conntrack,
    NatInstance,
    Cachenat,
    /// The same with 10,000 networks on the allow-list.
    CachenatManyClients,
    IptablesLegacy,
    IptablesNft,
    Haproxy,
    Nginx,
    Socat,
}

/// How many networks are on the longer allow-list.
pub(crate) const MANY_CLIENTS: u32 = 10_000;

impl Peer {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing without conntrack",
            Self::Conntrack => "routing with conntrack",
            Self::NatInstance => "routing through a NAT instance",
            Self::Cachenat => "cachenat",
            Self::CachenatManyClients => "cachenat, 10,000 clients",
            Self::IptablesLegacy => "iptables (legacy)",
            Self::IptablesNft => "iptables (nft)",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx stream",
            Self::Socat => "socat",
        }
    }

    /// Whether it leads the client to the node's own address.
    pub(crate) const fn routes(self) -> bool {
        matches!(self, Self::Routing | Self::Conntrack | Self::NatInstance)
    }

    /// Sets it up on a gateway with so many forwards.
    pub(crate) fn set_up(
        self,
        wires: &Wires,
        gateway: &Gateway,
        forwards: u16,
    ) -> Result<Option<Proxy>, String> {
        let dir = wires.dir.path().join(gateway.address.to_string());
        fs::create_dir(&dir).map_err(|error| error.to_string())?;
        let nodes = Nodes::new(forwards);
        if self.routes() {
            wires.route_through(gateway);
        }
        match self {
            Self::Routing => {}
            Self::Conntrack => load(gateway, "nft", CONNTRACK, &dir)?,
            Self::NatInstance => load(gateway, "nft", MASQUERADE, &dir)?,
            Self::Cachenat => cachenat(gateway, nodes, 1, &dir)?,
            Self::CachenatManyClients => cachenat(gateway, nodes, MANY_CLIENTS, &dir)?,
            Self::IptablesLegacy => iptables(gateway, "iptables-legacy-restore", nodes, &dir)?,
            Self::IptablesNft => iptables(gateway, "iptables-nft-restore", nodes, &dir)?,
            Self::Haproxy => return haproxy(gateway, nodes, &dir).map(Some),
            Self::Nginx => return nginx(gateway, nodes, &dir).map(Some),
            Self::Socat => return socat(gateway, nodes).map(Some),
        }
        Ok(None)
    }
}

/// A packet is looked up, and a flow kept, for no more than this one rule.
const CONNTRACK: &str = "table inet baseline {
    chain forward { type filter hook forward priority filter; policy accept; ct state invalid drop; }
}";

/// The base configuration of every NAT instance.
const MASQUERADE: &str = "table ip nat {
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        oifname \"eth0\" ip saddr 10.0.1.0/24 ip daddr != 10.0.0.0/16 masquerade
    }
}";

fn cachenat(gateway: &Gateway, nodes: Nodes, clients: u32, dir: &Path) -> Result<(), String> {
    let mut allowed = String::from("198.51.100.27");
    for number in 1..clients {
        // Every other address, so that none merge.
        write!(allowed, ", {}", std::net::Ipv4Addr::from_bits(0x0b00_0000 + 2 * number)).unwrap();
    }
    let root = dir.display();
    let config = format!(
        "clients: [{allowed}]\ngateway: {{interface: eth0, addresses: [{}]}}\nports: {FIRST_PORT}-65535\nsources: []\n\
         state_dir: {root}/state\nsysctl_dir: {root}/sysctl.d\nlock_file: {root}/lock\n",
        gateway.address,
    );
    let inventory = dir.join("inventory.json");
    fs::write(dir.join("config.yaml"), config).map_err(|error| error.to_string())?;
    fs::write(&inventory, nodes.inventory()).map_err(|error| error.to_string())?;
    let mut apply = gateway.host.command(programs::cachenat());
    apply.env("AWS_EC2_METADATA_DISABLED", "true");
    apply.args(["--quiet", "apply", "--config"]).arg(dir.join("config.yaml"));
    run(apply.arg("--inventory").arg(inventory))
}

/// AWS's own rules: one for each node, and one for the way back.
fn iptables(gateway: &Gateway, program: &str, nodes: Nodes, dir: &Path) -> Result<(), String> {
    gateway.host.set_sysctl("net/ipv4/ip_forward", "1");
    let mut rules = String::from("*nat\n");
    for (port, target) in forwards(nodes) {
        writeln!(rules, "-A PREROUTING -i eth0 -p tcp --dport {port} -j DNAT --to-destination {target}")
            .unwrap();
    }
    writeln!(rules, "-A POSTROUTING -o eth0 -j SNAT --to-source {}\nCOMMIT", gateway.address).unwrap();
    load(gateway, program, &rules, dir)
}

fn haproxy(gateway: &Gateway, nodes: Nodes, dir: &Path) -> Result<Proxy, String> {
    let mut config = String::from(
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n",
    );
    for (port, target) in forwards(nodes) {
        writeln!(config, "listen p{port}\n  bind {}:{port}\n  server node {target}", gateway.address)
            .unwrap();
    }
    let file = dir.join("haproxy.cfg");
    fs::write(&file, config).map_err(|error| error.to_string())?;
    let mut command = proxy(gateway, "haproxy");
    command.args(["-db", "-q", "-f"]).arg(file);
    Proxy::start(gateway, nodes, vec![command])
}

fn nginx(gateway: &Gateway, nodes: Nodes, dir: &Path) -> Result<Proxy, String> {
    let mut config = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nuser root;\nworker_processes auto;\n\
         worker_rlimit_nofile 20000;\npid {0}/pid;\nerror_log stderr;\nevents {{ worker_connections 8000; }}\nstream {{\n",
        dir.display(),
    );
    for (port, target) in forwards(nodes) {
        writeln!(config, "  server {{ listen {}:{port}; proxy_pass {target}; }}", gateway.address).unwrap();
    }
    config.push_str("}\n");
    let file = dir.join("nginx.conf");
    fs::write(&file, config).map_err(|error| error.to_string())?;
    let mut command = proxy(gateway, "nginx");
    command.args(["-e", "stderr", "-c"]).arg(file);
    Proxy::start(gateway, nodes, vec![command])
}

/// A process for each forward, and one more for each connection.
fn socat(gateway: &Gateway, nodes: Nodes) -> Result<Proxy, String> {
    let each = |(port, target): (u16, String)| {
        let mut command = proxy(gateway, "socat");
        command.arg(format!("TCP-LISTEN:{port},bind={},fork,reuseaddr,backlog=512", gateway.address));
        command.arg(format!("TCP:{target}"));
        command
    };
    Proxy::start(gateway, nodes, forwards(nodes).map(each).collect())
}

/// Each port and where it leads.
fn forwards(nodes: Nodes) -> impl Iterator<Item = (u16, String)> {
    (0..nodes.size).map(move |number| (FIRST_PORT + number, format!("{}:6379", nodes.address(number))))
}

/// Loads a file by a program that takes `-f` (nft) or reads its argument (the iptables family).
fn load(gateway: &Gateway, program: &str, text: &str, dir: &Path) -> Result<(), String> {
    let file = dir.join("rules");
    fs::write(&file, text).map_err(|error| error.to_string())?;
    let mut command = gateway.host.command(program);
    if program == "nft" {
        command.arg("-f");
    }
    run(command.arg(file))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_args().nth(2).unwrap_or_default().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("`{name}` ends with {}: {first}", output.status))
    }
}

/// A program on the gateway that ends with this one, however this one ends; nginx's workers end with a master that is
/// asked to.
fn proxy(gateway: &Gateway, program: &str) -> Command {
    let mut command = gateway.host.command("setpriv");
    command.args(["--pdeathsig", "TERM", program]);
    command
}

/// The processes of a proxy; they end with this value.
pub(crate) struct Proxy(Vec<Child>);

/// How long a proxy may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

impl Proxy {
    fn start(gateway: &Gateway, nodes: Nodes, commands: Vec<Command>) -> Result<Self, String> {
        let mut proxy = Self(Vec::new());
        for mut command in commands {
            command.stdin(Stdio::null()).stdout(Stdio::null());
            proxy.0.push(command.spawn().map_err(|error| format!("{command:?}: {error}"))?);
        }
        // Where one process has them all, the last that it opens stands for those before.
        let last = FIRST_PORT + nodes.size - 1;
        let first = if proxy.0.len() == 1 { last } else { FIRST_PORT };
        let begin = Instant::now();
        for port in first..=last {
            let at = std::net::SocketAddrV4::new(gateway.address, port);
            while gateway.host.connect(at).is_err() {
                if begin.elapsed() > PATIENCE {
                    return Err(format!("it does not listen on {at}"));
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            if let Ok(id) = i32::try_from(child.id()) {
                // Fails only when it has ended, which is what is wanted.
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
        }
        for child in &mut self.0 {
            let begin = Instant::now();
            while child.try_wait().is_ok_and(|ended| ended.is_none()) {
                if begin.elapsed() > PATIENCE {
                    let _ = child.kill();
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
