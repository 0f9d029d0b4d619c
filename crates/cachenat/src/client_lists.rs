//! Who may connect now: the names and files of the configuration's lists, asked and read.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use applier::plain_file;
use discovery::{ClientAddresses, ClientNameError, Imds, Options, client_addresses};
use ipnet::IpNet;
use plan::{Client, ClientAnswers, ClientNetworks, Clients, KnownClients, settle_clients};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;

use crate::clock::now;
use crate::config::{ClientNetwork, Config, host_bits};
use crate::state::{self, StateError};

/// The last good networks of names and files, in the state directory.
const FILE: &str = "clients.json";

/// The most lines of a file of clients.
const MAX_LINES: usize = 65_536;

/// The most bytes of such a file: lines of 64 bytes, which an IPv6 network and a short comment fill.
const MAX_BYTES: u64 = 64 * MAX_LINES as u64;

/// An entry that was read an hour later is saved again, so that its age is known after a restart.
const STALE: Duration = Duration::from_secs(3600);

/// What of the entries is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Files, and names by DNS.
    All,
    /// Files; names have their last good addresses. For the boot, and where only what is in force counts.
    Files,
}

/// The form of [`KnownClients`] in the file.
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    clients: KnownClients,
}

/// What the configuration's lists of clients stand for; names are asked on a thread of their own, so that an asynchronous
/// task may call this too.
pub(crate) fn read(config: &Config, imds: &Imds, which: Ask) -> Clients {
    let before = Clients::of_known(known(config));
    let mut answers = files(config);
    let names = names(config);
    if which == Ask::All && !names.is_empty() {
        let imds = imds.clone();
        let asked = move || {
            let runtime = Builder::new_current_thread().enable_all().build().ok()?;
            Some(runtime.block_on(ask_names(names, imds)).0)
        };
        answers.extend(thread::scope(|scope| scope.spawn(asked).join().ok().flatten()).unwrap_or_default());
    }
    settle(config, &answers, &before)
}

/// Lays what was read over what is known.
pub(crate) fn settle(config: &Config, answers: &ClientAnswers, before: &Clients) -> Clients {
    settle_clients(&config.clients, answers, before, config.clients_keep, now())
}

/// The names in the configuration's lists, each once.
pub(crate) fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = entries(config)
        .filter_map(|client| if let Client::Name(name) = client { Some(name.clone()) } else { None })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn entries(config: &Config) -> impl Iterator<Item = &Client> {
    config.clients.iter().flatten()
}

/// The addresses of the names, and for how long they hold.
pub(crate) async fn ask_names(names: Vec<String>, imds: Imds) -> (ClientAnswers, Option<Duration>) {
    let options = Options { imds, ..Options::default() };
    let (answers, ttl) = client_addresses(&names, &options).await;
    let answer = |(name, answer): (String, Result<ClientAddresses, ClientNameError>)| {
        let networks = |ClientAddresses { addresses, refused }| ClientNetworks {
            networks: addresses.into_iter().map(IpNet::from).collect(),
            refused,
        };
        (Client::Name(name), answer.map(networks).map_err(|error| error.to_string()))
    };
    (answers.into_iter().map(answer).collect(), ttl)
}

/// The networks of the files, each read once.
pub(crate) fn files(config: &Config) -> ClientAnswers {
    let paths =
        entries(config).filter_map(|client| if let Client::File(path) = client { Some(path) } else { None });
    paths.map(|path| (Client::File(path.clone()), read_file(path))).collect()
}

/// A network or address a line; a `#` begins a comment.
fn read_file(path: &Path) -> Result<ClientNetworks, String> {
    let text = plain_file::read(path, MAX_BYTES).map_err(|error| error.to_string())?;
    if plain_file::is_writable_by_all(path) {
        return Err(format!("can be written by everybody on this host: chmod o-w {}", path.display()));
    }
    let mut networks = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let ClientNetwork(network) = entry.parse().map_err(|_| {
            format!("line {number}: {entry:?} is no address or network, such as 198.51.100.27")
        })?;
        if let Some((what, remedy)) = host_bits(network) {
            return Err(format!("line {number}: {what}; {remedy}"));
        }
        networks.push(network);
        if networks.len() > MAX_LINES {
            return Err(format!("more than {MAX_LINES} lines"));
        }
    }
    Ok(ClientNetworks { networks, refused: vec![] })
}

/// What the state directory has; one that is damaged knows nothing.
///
/// Whoever may write there decides no more by it than a name server does: for a name only single addresses are believed.
fn known(config: &Config) -> KnownClients {
    let text = plain_file::read(&path(config), plain_file::LIMIT).unwrap_or_default();
    let document: Option<Document> = serde_json::from_str(&text).ok();
    document
        .filter(|document| document.version == 1)
        .map(|document| document.clients.credible())
        .unwrap_or_default()
}

/// Writes down what is known of names and files, if it says anything new.
///
/// # Errors
///
/// If it can't be written.
pub(crate) fn save(config: &Config, clients: &Clients) -> Result<(), StateError> {
    let before = known(config);
    if clients.known.says_the_same(&before, STALE) {
        return Ok(());
    }
    let document = Document { version: 1, clients: clients.known.clone() };
    let text = serde_json::to_string(&document).unwrap_or_default();
    state::write(&path(config), [text, "\n".to_owned()])
}

fn path(config: &Config) -> PathBuf {
    config.state_dir.join(FILE)
}
