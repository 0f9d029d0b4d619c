//! Who may connect, where names and files say it.
//!
//! A fresh answer replaces the former one at once: unlike a node's, a client's former address is a stranger's. Without an
//! answer the last good one stays for a while, so that a name server's failure locks nobody out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::time::Duration;

use discovery::Timestamp;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The most addresses of a name.
const MAX_ADDRESSES: usize = 16;

/// An entry of a list of clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// A network, or one address.
    Network(IpNet),
    /// `{dns: NAME}`: the addresses that an absolute name has.
    Name(String),
    /// `{file: PATH}`: a network on each line.
    File(PathBuf),
}

impl Display for Client {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Name(name) => write!(f, "dns {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// What names and files say now, or why they say nothing. An entry that was not asked is not in it.
pub type ClientAnswers = BTreeMap<Client, Result<ClientNetworks, String>>;

/// What a name or a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientNetworks {
    /// The networks, in any order.
    pub networks: Vec<IpNet>,
    /// What was left out, and why.
    pub refused: Vec<String>,
}

/// What names and files said when they could last be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownClients(BTreeMap<String, Known>);

/// The same of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The networks, sorted.
    pub networks: Vec<IpNet>,
    /// When its networks last changed.
    pub since: Timestamp,
    /// When it was last read.
    pub seen: Timestamp,
    /// A reading that lost more than half of a file's lines, and waits for a second one that says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubted: Option<Vec<IpNet>>,
}

/// The networks that the lists of clients stand for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// The networks of each list, in the order of the lists.
    pub lists: Vec<Vec<IpNet>>,
    /// What is known of the names and files in them; the next last good.
    pub known: KnownClients,
    /// Whether an entry was neither asked now nor is anything known of it.
    pub is_open: bool,
    /// What could not be read and what is kept for that, by entry; each line names it.
    pub kept: BTreeMap<Client, String>,
}

impl KnownClients {
    /// What is known of an entry.
    pub fn get(&self, client: &Client) -> Option<&Known> {
        self.0.get(&client.to_string())
    }

    /// All entries, by how they are written: `dns home.example.net`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Known)> {
        self.0.iter().map(|(entry, known)| (entry.as_str(), known))
    }

    /// Whether a later run learns as much from `before`: the same networks, none read `stale` or more later.
    pub fn says_the_same(&self, before: &Self, stale: Duration) -> bool {
        let age = |(entry, known): (&String, &Known)| {
            let before = before.0.get(entry).map_or(Timestamp::default(), |before| before.seen);
            (
                entry.clone(),
                Known {
                    seen: if known.seen < before + stale { before } else { known.seen },
                    ..known.clone()
                },
            )
        };
        self.0.iter().map(age).collect::<BTreeMap<_, _>>() == before.0
    }

    /// What of a file that another user may have written is believed: of a name no more than a name server could say.
    pub fn credible(mut self) -> Self {
        let is_address = |network: &IpNet| network.prefix_len() == network.max_prefix_len();
        self.0.retain(|entry, known| {
            !entry.starts_with("dns ")
                || known.networks.len() <= MAX_ADDRESSES && known.networks.iter().all(is_address)
        });
        self
    }
}

impl Clients {
    /// What was known before anything is asked.
    pub fn of_known(known: KnownClients) -> Self {
        Self { known, ..Self::default() }
    }
}

/// Puts together the networks of each list: those that are written out, what names and files say now, and where they say
/// nothing what they said before, for at most `keep`. An entry that is not among the answers stays as it was.
pub fn settle_clients(
    lists: &[Vec<Client>],
    answers: &ClientAnswers,
    before: &Clients,
    keep: Duration,
    now: Timestamp,
) -> Clients {
    let mut clients = Clients::default();
    let entries: BTreeSet<&Client> = lists.iter().flatten().collect();
    for entry in entries.into_iter().filter(|entry| !matches!(entry, Client::Network(_))) {
        let known = before.known.get(entry);
        let (known, kept) = match answers.get(entry) {
            Some(answer) => {
                let (known, why) = settle(entry, answer, known, keep, now);
                (known, why.map(|why| format!("clients: {entry}: {why}")))
            }
            None => {
                let kept = before.kept.get(entry).cloned();
                clients.is_open |= known.is_none() && kept.is_none();
                (known.cloned(), kept)
            }
        };
        clients.known.0.extend(known.map(|known| (entry.to_string(), known)));
        clients.kept.extend(kept.map(|line| (entry.clone(), line)));
    }
    let networks = |client: &Client| match client {
        Client::Network(network) => vec![*network],
        moving => {
            let known = clients.known.get(moving).filter(|known| is_fresh(known, keep, now));
            known.map(|known| known.networks.clone()).unwrap_or_default()
        }
    };
    clients.lists = lists.iter().map(|list| list.iter().flat_map(networks).collect()).collect();
    clients
}

fn is_fresh(known: &Known, keep: Duration, now: Timestamp) -> bool {
    // A file from a host whose clock was ahead, or that another user wrote, is not believed for ever.
    known.seen <= now && known.seen.elapsed(now) <= keep
}

/// What is known of an entry from now on, and what there is to warn of.
fn settle(
    entry: &Client,
    answer: &Result<ClientNetworks, String>,
    before: Option<&Known>,
    keep: Duration,
    now: Timestamp,
) -> (Option<Known>, Option<String>) {
    match (answer, before) {
        (Ok(ClientNetworks { networks, refused }), before) => {
            let refused = (!refused.is_empty()).then(|| format!("{}; left out", refused.join(", ")));
            let networks: Vec<IpNet> =
                networks.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            let Some(before) = before else {
                return (Some(Known { networks, since: now, seen: now, doubted: None }), refused);
            };
            let (had, has) = (before.networks.len(), networks.len());
            let is_confirmed = before.doubted.as_ref() == Some(&networks);
            // A name says all that it stands for; a file may have been read while it was being written.
            if matches!(entry, Client::File(_)) && has * 2 < had && !is_confirmed {
                let why = format!(
                    "{} of {had} networks disappeared at once; keeping them until a second reading confirms it",
                    had - has
                );
                return (Some(Known { seen: now, doubted: Some(networks), ..before.clone() }), Some(why));
            }
            let since = if before.networks == networks { before.since } else { now };
            (Some(Known { networks, since, seen: now, doubted: None }), refused)
        }
        (Err(why), None) => (None, Some(format!("{why}; it admits no one"))),
        (Err(why), Some(before)) => {
            let hours = keep.as_secs().div_ceil(3600);
            let what = if is_fresh(before, keep, now) {
                format!("keeping the {} networks it last had, for at most {hours} h", before.networks.len())
            } else {
                format!(
                    "NOT READ FOR OVER {hours} h: the {} networks it last had are taken out",
                    before.networks.len()
                )
            };
            (Some(before.clone()), Some(format!("{why}; {what}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(24 * 3600);

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn home() -> Client {
        Client::Name("home.example.net".to_owned())
    }

    fn file() -> Client {
        Client::File("/etc/cachenat/ci.txt".into())
    }

    fn run(client: &Client, answer: Result<&[&str], &str>, before: &Clients, now: u64) -> Clients {
        let answer = answer.map(|texts| ClientNetworks { networks: networks(texts), refused: vec![] });
        let answer = answer.map_err(str::to_owned);
        let now = Timestamp::from_secs(now);
        settle_clients(&[vec![client.clone()]], &[(client.clone(), answer)].into(), before, KEEP, now)
    }

    #[test]
    fn a_fresh_answer_replaces_the_old_one() {
        let first = run(&home(), Ok(&["198.51.100.27/32"]), &Clients::default(), 100);
        assert_eq!(first.lists, [networks(&["198.51.100.27/32"])]);
        let moved = run(&home(), Ok(&["198.51.100.99/32"]), &first, 200);
        let known = moved.known.get(&home()).unwrap();
        assert_eq!((&moved.lists, moved.kept.len()), (&vec![networks(&["198.51.100.99/32"])], 0));
        assert_eq!((known.since, known.seen), (Timestamp::from_secs(200), Timestamp::from_secs(200)));
    }

    #[test]
    fn an_error_keeps_the_last_answer_for_a_day() {
        let first = run(&home(), Ok(&["198.51.100.27/32"]), &Clients::default(), 100);
        let failed = run(&home(), Err("SERVFAIL"), &first, 100 + 86_400);
        assert_eq!(failed.lists, first.lists);
        let words =
            "clients: dns home.example.net: SERVFAIL; keeping the 1 networks it last had, for at most 24 h";
        assert_eq!(failed.kept[&home()], words);
        let expired = run(&home(), Err("SERVFAIL"), &failed, 101 + 86_400);
        assert_eq!(expired.lists, [vec![]]);
        assert!(expired.kept[&home()].contains("NOT READ FOR OVER 24 h"), "{:?}", expired.kept);
        let never = run(&home(), Err("NXDOMAIN"), &Clients::default(), 0);
        assert_eq!(never.kept[&home()], "clients: dns home.example.net: NXDOMAIN; it admits no one");
    }

    #[test]
    fn a_file_that_loses_half_needs_two_readings() {
        let all = ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"];
        let first = run(&file(), Ok(&all), &Clients::default(), 100);
        let half = run(&file(), Ok(&all[..2]), &first, 200);
        assert_eq!(
            (half.lists, half.kept.len()),
            (vec![networks(&all[..2])], 0),
            "two of three are no more than half"
        );
        let less = run(&file(), Ok(&all[..1]), &first, 200);
        assert_eq!(less.lists, first.lists);
        assert!(less.kept[&file()].contains("2 of 3 networks disappeared at once"), "{:?}", less.kept);
        let other = run(&file(), Ok(&all[1..2]), &less, 300);
        assert_eq!(other.lists, first.lists, "a second reading that says something else confirms nothing");
        let confirmed = run(&file(), Ok(&all[1..2]), &other, 400);
        assert_eq!((confirmed.lists, confirmed.kept.len()), (vec![networks(&all[1..2])], 0));
    }

    #[test]
    fn what_is_not_asked_stays() {
        let first = run(&home(), Ok(&["198.51.100.27/32"]), &Clients::default(), 100);
        let lists = [vec![home(), Client::Network("192.0.2.0/24".parse().unwrap())], vec![home()]];
        let restored = settle_clients(&lists, &ClientAnswers::new(), &first, KEEP, Timestamp::from_secs(200));
        assert_eq!(restored.lists[0], networks(&["198.51.100.27/32", "192.0.2.0/24"]));
        assert_eq!(restored.lists[1], networks(&["198.51.100.27/32"]));
        assert_eq!((restored.kept.len(), restored.known), (0, first.known));
    }
}
