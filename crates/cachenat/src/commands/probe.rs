//! `probe`: run on the client's side: is each port reachable, and the right node behind it?

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use applier::host;
use discovery::{Dial, GreetError, ServerInfo, TlsTrust, greet_all};
use doctor::probe::{ProbeResult, ProbeVerdict, Target, evaluate, parse};
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;

use crate::args::Global;
use crate::output::{Exit, Output, columns};

/// How to ask.
pub(super) struct Asking<'a> {
    /// A file, `-`, or `HOST:PORTS`.
    pub(super) whom: &'a str,
    /// Whether to speak TLS where a file does not say.
    pub(super) tls: bool,
    pub(super) ca_file: Option<&'a Path>,
    pub(super) patience: Duration,
    pub(super) json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    ok: bool,
    nodes: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    id: Option<&'a str>,
    address: String,
    #[serde(flatten)]
    verdict: &'a ProbeVerdict,
}

pub(super) fn run(global: &Global, asking: &Asking<'_>) -> anyhow::Result<Exit> {
    // Neither configuration nor state is read: this is not the gateway.
    let output = Output::new(global);
    let targets = targets(asking.whom)?;
    if is_gateway(&targets) {
        output.warn(
            "this host is the gateway itself, whose own packets meet no forward: run probe on a client's host",
        );
    }
    let verdicts = evaluate(&targets, &ask(&targets, asking)?);
    let ok = verdicts.iter().all(|verdict| verdict.result == ProbeResult::Ok);
    let lines = targets.iter().zip(&verdicts);
    if asking.json {
        let nodes = lines
            .map(|(target, verdict)| Line {
                id: target.node.as_ref().map(|node| node.id.as_str()),
                address: target.address.to_string(),
                verdict,
            })
            .collect();
        output.data(&(serde_json::to_string_pretty(&Document { version: 1, ok, nodes })? + "\n"))?;
    } else {
        let row = |(target, verdict): (&Target, &ProbeVerdict)| {
            let said = match &verdict.remedy {
                Some(remedy) => format!("{}: {remedy}", verdict.detail),
                None => verdict.detail.clone(),
            };
            [target.id().to_owned(), target.address.to_string(), verdict.result.text().to_owned(), said]
        };
        output.data(&columns(["NODE", "ADDRESS", "RESULT", "DETAIL"], lines.map(row)))?;
    }
    Ok(if ok { Exit::Done } else { Exit::Found })
}

/// Whether this is where the forwards are: the address that is to be dialled is one of this host's, or its state is here.
fn is_gateway(targets: &[Target]) -> bool {
    let local = host::addresses().unwrap_or_default();
    let is_own = |target: &Target| {
        let address = target.address.host.parse();
        address.is_ok_and(|address: IpAddr| {
            !address.is_loopback() && local.iter().any(|own| own.address == address)
        })
    };
    targets.iter().any(is_own) || Path::new(STATE).exists()
}

/// What a gateway has, by the package's configuration.
const STATE: &str = "/var/lib/cachenat/ruleset.json";

fn targets(whom: &str) -> anyhow::Result<Vec<Target>> {
    let text = match whom {
        "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        }
        file => fs::read_to_string(file),
    };
    match text {
        Ok(text) => parse(&text).with_context(|| whom.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Target::of_ports(whom)?),
        Err(error) => Err(error).with_context(|| whom.to_owned()),
    }
}

/// How many servers can be greeted at once: what the limit of open files leaves, and no more than are of use.
pub(super) fn at_once() -> NonZeroUsize {
    const MOST: u64 = 256;
    /// What is open besides: the standard streams, the runtime's own.
    const BESIDES: u64 = 16;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(MOST, |(soft, _)| soft);
    let many = (limit.saturating_sub(BESIDES) / 2).min(MOST);
    usize::try_from(many).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

fn ask(targets: &[Target], asking: &Asking<'_>) -> anyhow::Result<Vec<Result<ServerInfo, GreetError>>> {
    let ca_file: Option<PathBuf> = asking.ca_file.map(Path::to_owned);
    let dial = |target: &Target| {
        let tls = target.node.as_ref().map_or(asking.tls, |node| node.tls || asking.tls);
        // The certificate carries the name that the cache has for the node, not the gateway's.
        let server_name = target.node.as_ref().and_then(|node| node.certificate_name()).map(str::to_owned);
        let trust = TlsTrust { ca_file: ca_file.clone(), server_name };
        Dial { address: target.address.clone(), tls: tls.then_some(trust) }
    };
    let dials: Vec<Dial> = targets.iter().map(dial).collect();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    Ok(runtime.block_on(greet_all(&dials, asking.patience, at_once())))
}
