//! Asking a running cache itself, without AWS credentials.

mod connection;
mod greet;
mod memcached;
mod redis;
mod resp;
mod slots;

pub use greet::{Dial, GreetError, ServerInfo, ServerProtocol, greet_all};

use std::{
    fs::{self, File},
    io::{self, Read},
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio::time::timeout;
use tracing::debug;

use crate::{
    Also, Engine, HostPort, LookupError, Node, NodeId, Options, Refusal, Role, Secret, Seed, Source,
    SourceName, SourceReport, text::plain,
};

/// Why a cache did not tell its nodes. The source's name is the caller's to add.
#[derive(Debug, Error)]
pub enum InBandError {
    /// The seed's name has no address.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The seed's name leads to where no target may be.
    #[error("{seed}: refused: {refusal}")]
    SeedRefused {
        /// The seed.
        seed: HostPort,
        /// Why.
        refusal: Refusal,
    },
    /// The seed could not be reached, or went away.
    #[error("{seed}: {source}")]
    Connection {
        /// The seed.
        seed: HostPort,
        /// Why.
        source: io::Error,
    },
    /// The seed did not answer in time.
    #[error("{seed}: no answer in time")]
    Timeout {
        /// The seed.
        seed: HostPort,
    },
    /// The password can't be read.
    #[error("the password in {place}: {reason}")]
    Secret {
        /// The variable or file.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of certificate authorities can't be read.
    #[error("the certificates in {}: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The server refused the login or the command.
    #[error("{seed}: {command}: {answer}")]
    Refused {
        /// The seed.
        seed: HostPort,
        /// What was asked, without its arguments.
        command: &'static str,
        /// The server's words.
        answer: String,
    },
    /// The answer is not what the protocol says.
    #[error("{seed}: the answer makes no sense: {reason}")]
    Malformed {
        /// The seed.
        seed: HostPort,
        /// What is wrong with it.
        reason: String,
    },
    /// A Memcached that is not ElastiCache's.
    #[error(
        "{seed}: this server does not know `config get cluster`, only ElastiCache's does: list its nodes as static"
    )]
    NotElastiCache {
        /// The seed.
        seed: HostPort,
    },
}

/// The most nodes of one source; the largest cluster of ElastiCache has 500.
const MAX_NODES: usize = 4_096;

/// The longest file of a password or of certificates, in bytes; a system's bundle has 220 KiB.
const MAX_FILE: u64 = 4 << 20;

/// What a cache told.
#[derive(Debug, Default, PartialEq, Eq)]
struct ClusterView {
    engine: Option<Engine>,
    tls: bool,
    members: Vec<Member>,
    /// Present: there may be more nodes than these.
    doubt: Option<String>,
}

/// A node as the cache tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    /// The name that it keeps.
    id: String,
    shard: Option<String>,
    role: Option<Role>,
    status: String,
    host: String,
    port: NonZeroU16,
}

/// The nodes that an in-band source tells; none for other sources.
pub(crate) async fn find(source: &Source, options: &Options) -> Option<(SourceReport, Vec<Node>)> {
    let Source::InBand { name, seed, also } = source else { return None };
    let address = seed.address();
    let asked = async {
        match seed {
            Seed::Redis(redis) => redis::ask(name, redis, options).await,
            Seed::Memcached(address) => memcached::ask(name, address, options).await,
        }
    };
    let told = timeout(options.in_band_deadline, asked).await;
    let told = told.unwrap_or_else(|_| Err(InBandError::Timeout { seed: address.clone() }));
    match &told {
        Ok(told) => debug!("{address}: names {} nodes", told.members.len()),
        Err(error) => debug!("{address}: {error}"),
    }
    Some(match told {
        Ok(told) => understood(told, name, source.name(), address, also),
        Err(error) => (SourceReport::failed(source.name(), plain(&error.to_string())), Vec::new()),
    })
}

fn understood(
    told: ClusterView,
    cluster: &str,
    source: SourceName,
    seed: &HostPort,
    also: &Also,
) -> (SourceReport, Vec<Node>) {
    if told.members.len() > MAX_NODES {
        let reason = format!("it names {} nodes, and {MAX_NODES} is the most", told.members.len());
        let error = InBandError::Malformed { seed: seed.clone(), reason };
        return (SourceReport::failed(source, error), Vec::new());
    }
    let mut doubt = told.doubt;
    let mut nodes = Vec::new();
    for member in told.members {
        let id: NodeId = match member.id.parse() {
            Ok(id) => id,
            Err(error) => {
                doubt = Some(format!("{}: {error}", plain(&member.id)));
                continue;
            }
        };
        if !also.admits_port(member.port, seed.port) {
            doubt = Some(format!(
                "{id}: announced on port {}, not on the seed's {}; if it is right, add the port to also_ports",
                member.port, seed.port
            ));
            continue;
        }
        nodes.push(Node {
            id,
            cluster: plain(cluster).into(),
            source: source.clone(),
            shard: member.shard.map(Into::into),
            role: member.role,
            engine: told.engine.clone(),
            tls: told.tls,
            status: plain(&member.status).into(),
            host: plain(&member.host),
            port: member.port,
            addresses: Vec::new(),
            error: None,
            resolves: Vec::new(),
            configuration_host: None,
            network: None,
        });
    }
    let report = match doubt {
        Some(doubt) => SourceReport::partial(source, doubt),
        None => SourceReport::complete(source),
    };
    (report, nodes)
}

/// The first label of an ElastiCache name, which is the member cluster's id and survives replacement.
fn elasticache_label(host: &str) -> Option<&str> {
    host.contains(".cache.amazonaws.com").then(|| host.split('.').next()).flatten()
}

/// The password, read when it is needed and not kept.
fn reveal(secret: &Secret) -> Result<String, InBandError> {
    match secret {
        Secret::Env(name) => std::env::var(name).map_err(|error| InBandError::Secret {
            place: format!("${}", plain(name)),
            reason: error.to_string(),
        }),
        Secret::File(path) => match read_plain_file(path).and_then(text) {
            Ok(text) => Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned()),
            Err(error) => Err(InBandError::Secret {
                place: plain(&path.display().to_string()),
                reason: error.to_string(),
            }),
        },
    }
}

/// A pipe or a device would hold up all sources, as a read of a file can't be given up.
fn read_plain_file(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 4 MiB")),
        false => Ok(bytes),
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_with_too_many_nodes_is_not_believed() {
        let member = |number: usize| Member {
            id: format!("lab-{number}"),
            shard: None,
            role: None,
            status: "available".to_owned(),
            host: "10.0.1.230".to_owned(),
            port: 6379.try_into().unwrap(),
        };
        let understood = |nodes: usize| {
            let told = ClusterView { members: (0..nodes).map(member).collect(), ..ClusterView::default() };
            let seed = "10.0.1.230:6379".parse().unwrap();
            understood(told, "lab", "in_band/lab".parse().unwrap(), &seed, &Also::default())
        };
        assert_eq!(understood(MAX_NODES).1.len(), MAX_NODES);
        let (report, nodes) = understood(MAX_NODES + 1);
        let error = "10.0.1.230:6379: the answer makes no sense: it names 4097 nodes, and 4096 is the most";
        assert_eq!((report.error.as_deref(), nodes.len()), (Some(error), 0));
    }
}
