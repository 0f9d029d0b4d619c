//! The configuration, parsed once into types that can't hold nonsense.

mod document;
mod read;
mod sources;
mod values;

pub(crate) use values::{ClientNetwork, host_bits};

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use applier::plain_file::is_writable_by_all;
use discovery::{Secret, Seed, Source};
use ipnet::IpNet;
use plan::{Addresses, Client, ListenPort, PlanConfig, PlanSource};
use rules::{ForwardId, IfName, Tunnel};
use sha2::{Digest as _, Sha256};

use document::{Document, Mistake, Step};

/// Everything that the configuration file says, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The file that it came from, for messages.
    pub(crate) file: PathBuf,
    /// The file's text, to find the line of a key.
    text: String,
    /// The distinct lists of clients. The first is the file's own, for all sources that have none of their own.
    pub(crate) clients: Vec<Vec<Client>>,
    /// How long a name or file of clients that can't be read keeps its last networks.
    pub(crate) clients_keep: Duration,
    /// What happens to flows of clients that are no longer listed.
    pub(crate) on_client_gone: OnGone,
    /// What the gateway is.
    pub(crate) gateway: GatewayConfig,
    /// The pool of sources that have none of their own.
    pub(crate) ports: PortRange,
    /// `aws.region`.
    pub(crate) region: Option<String>,
    /// Where nodes come from.
    pub(crate) sources: Vec<ConfiguredSource>,
    /// Listeners fixed by hand; one without an address is on the gateway's first.
    pub(crate) pins: BTreeMap<ForwardId, ListenPort>,
    /// What happens to flows whose target is gone.
    pub(crate) on_move: OnGone,
    /// How many percent of a source's nodes one answer may remove.
    pub(crate) removal_guard: u8,
    /// Where leases and the last good inventory live.
    pub(crate) state_dir: PathBuf,
    /// Where the sysctl drop-in goes.
    pub(crate) sysctl_dir: PathBuf,
    /// What keeps two of us apart.
    pub(crate) lock_file: PathBuf,
}

/// A source with its own pool and its own clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfiguredSource {
    pub(crate) source: Source,
    pub(crate) ports: Option<PortRange>,
    /// Which of [`Config::clients`] may connect to its nodes.
    pub(crate) list: usize,
}

/// `auto`, or what stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Auto<T> {
    #[default]
    Auto,
    Set(T),
}

/// The `gateway` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GatewayConfig {
    /// The interfaces that clients come in by; the first is the one of [`Self::addresses`].
    pub(crate) interface: Auto<Vec<IfName>>,
    pub(crate) addresses: Auto<Addresses>,
    pub(crate) public_address: Auto<PublicAddress>,
    pub(crate) snat: SnatConfig,
    /// Interfaces by which clients reach the nodes' own addresses.
    pub(crate) tunnels: Vec<Tunnel>,
    /// The most bytes of a TCP segment; `None`: off.
    pub(crate) max_segment: Option<u16>,
    /// Whether established flows are offered to the kernel's fast path.
    pub(crate) flowtable: bool,
    /// Whether what is no client's connection to a cache is forwarded as well; `None`: that is left to the host.
    pub(crate) forward_others: Option<bool>,
}

/// `gateway.public_address`: what clients dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicAddress {
    /// For the gateway's one address of its family.
    Only(IpAddr),
    /// For each of its several addresses.
    Each(BTreeMap<IpAddr, IpAddr>),
}

impl GatewayConfig {
    /// What `gateway.public_address` names; nothing where it is `auto`.
    pub(crate) fn public_addresses(&self) -> Vec<IpAddr> {
        match &self.public_address {
            Auto::Auto => vec![],
            Auto::Set(PublicAddress::Only(address)) => vec![*address],
            Auto::Set(PublicAddress::Each(each)) => each.values().copied().collect(),
        }
    }

    /// The addresses, where there are several of a family.
    pub(crate) fn several_addresses(&self) -> Option<&Addresses> {
        match &self.addresses {
            Auto::Set(addresses) => Some(addresses).filter(|addresses| addresses.are_several()),
            // Of an interface's addresses only the primary ones are taken.
            Auto::Auto => None,
        }
    }
}

/// `gateway.snat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SnatConfig {
    /// The first gateway address of each family on its interface, and masquerade on others.
    #[default]
    Auto,
    Masquerade,
    /// One address or several on the gateway's interface, among which connections are shared.
    Addresses(Vec<IpAddr>),
    /// The same for each interface that leads to nodes.
    ByInterface(BTreeMap<IfName, Vec<IpAddr>>),
    Off,
}

/// `on_move` and `on_client_gone`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnGone {
    #[default]
    Cut,
    Drain,
}

/// A range of TCP ports, first and last included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortRange(RangeInclusive<u16>);

impl PortRange {
    pub(crate) fn range(&self) -> RangeInclusive<u16> {
        self.0.clone()
    }

    pub(crate) fn contains(&self, port: NonZeroU16) -> bool {
        self.0.contains(&port.get())
    }
}

impl Default for PortRange {
    /// 1,000 ports from Redis' own on.
    fn default() -> Self {
        Self(6379..=7378)
    }
}

impl FromStr for PortRange {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<NonZeroU16>().map(NonZeroU16::get).map_err(|_| ());
        let (first, last) = (port(first)?, port(last)?);
        if first <= last { Ok(Self(first..=last)) } else { Err(()) }
    }
}

impl Display for PortRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("configuration {}; --config or CACHENAT_CONFIG names another file", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}", describe(file, mistakes))]
    Mistaken { file: PathBuf, mistakes: Vec<Mistake> },
}

fn describe(file: &Path, mistakes: &[Mistake]) -> String {
    let file = file.display();
    match mistakes {
        [only] => format!("{file}:{only}"),
        several => {
            let list: String = several.iter().map(|mistake| format!("\n  {file}:{mistake}")).collect();
            format!("{} mistakes in {file}{list}", several.len())
        }
    }
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every mistake that could be found in one go: file, line, key and remedy.
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        Self::parse(file, text)
    }

    /// Only where state, drop-in and lock are, of a file that may be mistaken in all else; the usual places if it can't be
    /// read or is no YAML at all, and why.
    pub(crate) fn read_paths(file: &Path) -> (Self, Option<ConfigError>) {
        let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
        let (text, unreadable) = match std::fs::read_to_string(file) {
            Ok(text) => (text, None),
            Err(source) => (String::new(), Some(unreadable(source))),
        };
        let (config, unparsed) = match Document::parse(&text) {
            Ok(document) => (read::config(&document, file, &text), None),
            Err(mistake) => {
                let nothing = Document::parse("{}").expect("an empty mapping is YAML");
                let file = file.to_owned();
                (
                    read::config(&nothing, &file, ""),
                    Some(ConfigError::Mistaken { file, mistakes: vec![mistake] }),
                )
            }
        };
        (config, unreadable.or(unparsed))
    }

    /// Whether the file still says what it said when it was read. A pipe can be read only once, and counts as unchanged.
    ///
    /// # Errors
    ///
    /// If it can't be read.
    pub(crate) fn is_current(&self) -> io::Result<bool> {
        let found = std::fs::metadata(&self.file)?;
        let is_same = || Ok(std::fs::read(&self.file)? == self.text.as_bytes());
        if found.is_file() { is_same() } else { Ok(true) }
    }

    /// Those of its own file and the sources' files of passwords and authorities that any user of this host can write to.
    pub(crate) fn writable_by_all(&self) -> impl Iterator<Item = &Path> {
        fn of_source(configured: &ConfiguredSource) -> [Option<&Path>; 2] {
            match &configured.source {
                Source::InBand { seed: Seed::Redis(seed), .. } => {
                    let password = match &seed.password {
                        Some(Secret::File(file)) => Some(file),
                        _ => None,
                    };
                    let authorities = seed.tls.as_ref().and_then(|tls| tls.ca_file.as_ref());
                    [password, authorities].map(|file| file.map(PathBuf::as_path))
                }
                _ => [None, None],
            }
        }
        let files = self.sources.iter().flat_map(of_source).flatten();
        std::iter::once(self.file.as_path()).chain(files).filter(|file| is_writable_by_all(file))
    }

    /// The first 64 bits of the SHA-256 of the file's text: the same for every version of cachenat.
    pub(crate) fn digest(&self) -> u64 {
        let digest = Sha256::digest(self.text.as_bytes());
        digest.iter().take(8).fold(0, |bits, &byte| bits << 8 | u64::from(byte))
    }

    /// The directory that only the one who applies can write to: `/run/cachenat` for `/run/cachenat.lock`.
    pub(crate) fn run_dir(&self) -> PathBuf {
        match self.lock_file.extension() {
            Some(_) => self.lock_file.with_extension(""),
            None => self.lock_file.with_extension("d"),
        }
    }

    pub(crate) fn parse(file: &Path, text: String) -> Result<Self, ConfigError> {
        let mistaken = |mistakes| ConfigError::Mistaken { file: file.to_owned(), mistakes };
        let document = Document::parse(&text).map_err(|mistake| mistaken(vec![mistake]))?;
        let config = read::config(&document, file, &text);
        let mistakes = document.mistakes();
        if mistakes.is_empty() { Ok(config) } else { Err(mistaken(mistakes)) }
    }

    /// What of it a plan goes by; `clients` are the networks that the lists of clients stand for.
    pub(crate) fn plan(&self, clients: &[Vec<IpNet>]) -> PlanConfig {
        let source = |ConfiguredSource { source, ports, list }: &ConfiguredSource| PlanSource {
            name: source.name(),
            ports: ports.as_ref().map(PortRange::range),
            list: *list,
            is_asked: is_asked(source),
        };
        PlanConfig {
            clients: clients.to_vec(),
            ports: self.ports.range(),
            sources: self.sources.iter().map(source).collect(),
            pins: self.pins.clone(),
            max_removed_percent: self.removal_guard,
            flowtable: self.gateway.flowtable,
            forward_others: self.gateway.forward_others,
        }
    }

    /// Whether a list of clients has a file.
    pub(crate) fn has_client_files(&self) -> bool {
        self.clients.iter().flatten().any(|client| matches!(client, Client::File(_)))
    }

    /// Whether a list of clients has a name.
    pub(crate) fn has_client_names(&self) -> bool {
        self.clients.iter().flatten().any(|client| matches!(client, Client::Name(_)))
    }

    /// The sources that have to be asked; the configuration itself spells out the others.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &Source> {
        let sources = self.sources.iter().map(|configured| &configured.source);
        sources.filter(|source| is_asked(source))
    }

    /// What this host can't do of a key of the `gateway` section, at its line.
    pub(crate) fn gateway_mistake(&self, key: &str, what: String, remedy: &str) -> ConfigError {
        let key = vec![Step::key("gateway"), Step::key(key)];
        let mistake = Mistake::new(&self.text, key, what, remedy.to_owned());
        ConfigError::Mistaken { file: self.file.clone(), mistakes: vec![mistake] }
    }

    /// Whether the port is fixed by hand for a node.
    pub(crate) fn is_pinned(&self, port: NonZeroU16) -> bool {
        self.pins.values().any(|pin| pin.port == port)
    }

    /// Checks that no pin takes a port that this host itself listens on.
    ///
    /// `listening` are the ports with what is known of who listens: `sshd on 0.0.0.0`.
    ///
    /// # Errors
    ///
    /// Every clash, with the line and key of the pin.
    pub(crate) fn check_pins(&self, listening: &BTreeMap<NonZeroU16, String>) -> Result<(), ConfigError> {
        let clash = |(id, pin): (&ForwardId, &ListenPort)| {
            let who = listening.get(&pin.port)?;
            let what = format!("port {} is taken on this host: {who} listens on it", pin.port);
            let remedy = format!("pin {id} to another port, or move that service");
            let key = vec![Step::key("pins"), Step::key(id.as_str())];
            Some(Mistake::new(&self.text, key, what, remedy))
        };
        let mistakes: Vec<Mistake> = self.pins.iter().filter_map(clash).collect();
        let file = self.file.clone();
        if mistakes.is_empty() { Ok(()) } else { Err(ConfigError::Mistaken { file, mistakes }) }
    }
}

/// Whether a source has to be asked; the configuration itself spells out the others.
fn is_asked(source: &Source) -> bool {
    !matches!(source, Source::Static { .. })
}

#[cfg(test)]
mod tests;
