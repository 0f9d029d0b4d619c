//! The client's load, and its cost.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use cachenat_tests::lab::namespace::Namespace;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt::Linger};

use crate::stats::Samples;

/// Where the client dials: any of so many ports.
#[derive(Clone, Copy)]
pub(crate) struct Listeners {
    pub(crate) address: Ipv4Addr,
    pub(crate) first_port: u16,
    pub(crate) count: u16,
}

/// How long a connect or an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Listeners {
    fn any(self) -> SocketAddr {
        (self.address, self.first_port + fastrand::u16(0..self.count)).into()
    }

    /// Makes one connection: connect, `PING`, `PONG`, and a reset, which leaves no `TIME_WAIT`. Returns the durations of the
    /// connect and until the answer.
    fn visit(self) -> io::Result<(Duration, Duration)> {
        let begin = Instant::now();
        let mut connection = TcpStream::connect_timeout(&self.any(), PATIENCE)?;
        let connected = begin.elapsed();
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        connection.read_exact(&mut answer)?;
        let answered = begin.elapsed();
        if &answer != b"+PONG\r\n" {
            return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
        }
        setsockopt(&connection, Linger, &linger { l_onoff: 1, l_linger: 0 })?;
        Ok((connected, answered))
    }
}

/// New connections, as many as can be made.
pub(crate) struct Connections {
    pub(crate) per_second: f64,
    /// Microseconds of the machine's CPUs for one connection: client, gateway, node, and all between.
    pub(crate) cpu: f64,
}

/// Threads that connect: two for each CPU keep both busy.
const THREADS: usize = 4;

/// Makes new connections for a time; `forget` clears away what the gateway keeps of them and counts as part of their cost.
pub(crate) fn connections(
    client: &Namespace,
    to: Listeners,
    time: Duration,
    forget: impl FnOnce(),
) -> io::Result<Connections> {
    let before = Cpu::now();
    let begin = Instant::now();
    let count = client.enter(|| {
        thread::scope(|scope| {
            let connect = || {
                let mut count = 0_u32;
                while begin.elapsed() < time {
                    to.visit()?;
                    count += 1;
                }
                Ok(count)
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(connect)).collect();
            let counts = threads.into_iter().map(|thread| thread.join().unwrap());
            counts.sum::<io::Result<u32>>()
        })
    })?;
    let count = f64::from(count);
    let per_second = count / begin.elapsed().as_secs_f64();
    forget();
    Ok(Connections { per_second, cpu: before.busy_since().as_secs_f64() * 1e6 / count })
}

/// Microseconds from the first packet to its answer.
#[derive(Default)]
pub(crate) struct First {
    /// Up to the end of connect(2): SYN and SYN-ACK.
    pub(crate) connect: Samples,
    /// Up to the node's answer to `PING`.
    pub(crate) answer: Samples,
}

/// One connection after the other, while nothing else happens.
pub(crate) fn first(client: &Namespace, to: Listeners, count: usize) -> io::Result<First> {
    client.enter(|| {
        let mut first = First::default();
        for _ in 0..count {
            let (connected, answered) = to.visit()?;
            first.connect.add(connected.as_secs_f64() * 1e6);
            first.answer.add(answered.as_secs_f64() * 1e6);
        }
        Ok(first)
    })
}

/// What redis-benchmark(1) says.
pub(crate) struct Requests {
    pub(crate) per_second: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
}

/// Connections that ask, as redis-benchmark has them unless told otherwise.
pub(crate) const ASKING: &str = "50";

/// Requests over connections that are open already, `pipeline` at once on each.
pub(crate) fn requests(
    client: &Namespace,
    to: Listeners,
    count: usize,
    pipeline: usize,
) -> Result<Requests, String> {
    let mut command = client.command("setpriv");
    // Both end with this program, however it ends, and by themselves after a while.
    let ends_with_parent = ["--pdeathsig", "KILL"];
    command.args(ends_with_parent).args(["timeout", "--foreground", "--kill-after=1", "30", "setpriv"]);
    command.args(ends_with_parent).args(["redis-benchmark", "--csv", "-t", "get", "-c", ASKING]);
    command.args(["-h", &to.address.to_string(), "-p", &to.any().port().to_string()]);
    command.args(["-n", &count.to_string(), "-P", &pipeline.to_string()]).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
    let line = text.lines().find_map(|line| line.strip_prefix("\"GET\","));
    let line = line.ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("redis-benchmark ends with {}: {said}", output.status)
    })?;
    let fields: Option<Vec<f64>> =
        line.split(',').map(|field| field.trim_matches('"').parse().ok()).collect();
    match fields.as_deref() {
        Some(&[per_second, _, _, p50, _, p99, _]) => Ok(Requests { per_second, p50, p99 }),
        _ => Err(format!("redis-benchmark says {line:?}")),
    }
}

/// The idle time of all CPUs at a moment.
struct Cpu {
    at: Instant,
    idle: Duration,
    cpus: u32,
}

impl Cpu {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let cpus = stat.lines().filter(|line| line.starts_with("cpu")).count() - 1;
        let fields: Vec<u64> = stat
            .lines()
            .next()
            .unwrap()
            .split_whitespace()
            .skip(1)
            .map(|field| field.parse().unwrap())
            .collect();
        // proc_stat(5): user nice system idle iowait irq softirq steal, in hundredths of a second.
        let idle = Duration::from_millis((fields[3] + fields[4] + fields[7]) * 10);
        Self { at: Instant::now(), idle, cpus: u32::try_from(cpus).unwrap() }
    }

    /// What all CPUs did since then. Idle time is measured, while user and system time may be guessed from ticks.
    fn busy_since(&self) -> Duration {
        let now = Self::now();
        ((now.at - self.at) * self.cpus).saturating_sub(now.idle - self.idle)
    }
}
