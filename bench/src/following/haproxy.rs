//! HAProxy on the NAT instance, which asks DNS where the node is.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::{GATEWAY, Lab};

use super::ASK;

/// Beside cachenat's own.
pub(super) const PORT: u16 = 7380;

pub(super) struct Haproxy {
    _process: Daemon,
    socket: PathBuf,
}

impl Haproxy {
    /// Starts it, with the node's name as its only server.
    pub(super) fn start(lab: &Lab, name: &str) -> Result<Self, String> {
        let (file, socket) = (lab.dir().join("haproxy.cfg"), lab.dir().join("haproxy.sock"));
        let config = format!(
            "global\n  maxconn 1000\n  stats socket {} level operator\n\
             resolvers vpc\n  nameserver dns 127.0.0.1:53\n  timeout resolve {ASK}\n  timeout retry {ASK}\n  hold valid {ASK}\n\
             defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1h\n  timeout server 1h\n\
             listen cache\n  bind {GATEWAY}:{PORT}\n  \
             server node {name}:6379 resolvers vpc resolve-prefer ipv4 init-addr libc,none\n",
            socket.display()
        );
        fs::write(&file, config).map_err(|error| error.to_string())?;
        let mut command = lab.operator_command("setpriv");
        command.args(["--pdeathsig", "KILL", "haproxy", "-db", "-f"]).arg(file);
        let haproxy = Self { _process: Daemon::start(&mut command), socket };
        let node = *lab.nodes().find(|node| node.dns_name == name).ok_or("the lab has no such node")?.at.ip();
        match haproxy.follows(node, Duration::from_secs(10)) {
            Some(_) => Ok(haproxy),
            None => Err(format!("it does not find the node: {}", haproxy._process.said().join(" "))),
        }
    }

    /// When its server has that address, looked at each 2 ms.
    pub(super) fn follows(&self, address: Ipv4Addr, patience: Duration) -> Option<Instant> {
        let begin = Instant::now();
        let address = format!(" {address} ");
        while begin.elapsed() < patience {
            if self.servers().is_ok_and(|servers| servers.contains(&address)) {
                return Some(Instant::now());
            }
            thread::sleep(Duration::from_millis(2));
        }
        None
    }

    fn servers(&self) -> std::io::Result<String> {
        let mut connection = UnixStream::connect(&self.socket)?;
        connection.write_all(b"show servers state cache\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
