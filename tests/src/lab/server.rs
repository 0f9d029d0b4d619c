//! A server process that runs exactly as long as its value exists.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Stdio};

use super::namespace::Namespace;
use super::redis::Redis;
use super::wait::wait_for;

/// A running server. Dropping it kills the process, and so does the end of the thread that started it, however
/// it ends (PR_SET_PDEATHSIG, through setpriv(1)): a killed test leaves no server behind.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts a redis-server in `host`, with its files in `dir`, and waits until it answers.
    ///
    /// `options` are redis-server's own, such as `["--cluster-enabled", "yes"]`.
    pub fn redis(host: &Namespace, dir: &Path, at: SocketAddrV4, options: &[&str]) -> Self {
        let (address, port) = (at.ip().to_string(), at.port().to_string());
        let dir = dir.to_string_lossy();
        let mut words = vec!["redis-server", "--port", &port, "--dir", &dir];
        words.extend(["--bind", &address, "--protected-mode", "no", "--save", "", "--appendonly", "no"]);
        // A replica starts, and its offset moves, at once rather than after five and ten seconds.
        words.extend(["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]);
        words.extend(options);
        let server = Self::start(host, &words);
        let answers = || Redis::connect(host, at).ok()?.call(&["PING"]).ok();
        wait_for(&format!("redis-server at {at} to answer"), answers);
        server
    }

    /// Starts a memcached in `host` and waits until it accepts connections.
    pub fn memcached(host: &Namespace, at: SocketAddrV4) -> Self {
        let port = at.port().to_string();
        let server = Self::start(host, &["memcached", "-u", "root", "-m", "8", "-t", "1", "-p", &port]);
        let accepts = || host.connect(at).ok();
        wait_for(&format!("memcached at {at} to accept"), accepts);
        server
    }

    fn start(host: &Namespace, words: &[&str]) -> Self {
        let mut command = host.command("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { child: command.spawn().expect("nsenter and setpriv are part of util-linux") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A redis-server outside of any cache: another program that listens on the cache port.
#[derive(Debug)]
pub struct Elsewhere {
    /// Where it runs.
    pub host: Namespace,
    /// Its address and port.
    pub at: SocketAddrV4,
    _server: Server,
}

impl Elsewhere {
    /// Starts it on `host`, whose address is `address`, on port 6379.
    pub fn start(host: Namespace, dir: &Path, address: Ipv4Addr) -> Self {
        let at = SocketAddrV4::new(address, 6379);
        let server = Server::redis(&host, dir, at, &[]);
        Self { host, at, _server: server }
    }

    /// The id that distinguishes it from every other server.
    pub fn run_id(&self) -> String {
        let run_id = Redis::connect(&self.host, self.at).and_then(|mut redis| redis.info("run_id"));
        run_id.unwrap_or_else(|error| panic!("redis-server at {}: {error}", self.at))
    }
}
