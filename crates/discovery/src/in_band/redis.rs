//! Redis and Valkey: `CLUSTER SHARDS`, or `CLUSTER SLOTS` of servers before 7.0.

use std::{collections::BTreeMap, io, num::NonZeroU16};

use tokio::io::{AsyncWriteExt, BufReader};

use super::{
    ClusterView, InBandError, Member,
    connection::{self, Stream},
    elasticache_label,
    resp::{self, Value},
    reveal,
    slots::{SLOTS, SlotRange, covered},
};
use crate::{Engine, HostPort, Options, RedisSeed, Role, text::plain};

/// How much of a node's random id names it; twelve hex digits do not collide in a cluster of 1,000.
const ID_DIGITS: usize = 12;

/// Asks the seed for its cluster.
pub(super) async fn ask(name: &str, seed: &RedisSeed, options: &Options) -> Result<ClusterView, InBandError> {
    let stream = connection::open(&seed.address, seed.tls.as_ref(), options).await?;
    let mut session = Session { seed: &seed.address, stream: BufReader::new(stream) };
    session.log_in(seed).await?;

    let mut told = match session.call(&["CLUSTER", "SHARDS"]).await? {
        Value::Error(answer) if answer.contains("cluster support disabled") => {
            standalone(name, &seed.address)
        }
        // Before 7.0 there is no SHARDS; an ACL may also allow SLOTS alone.
        Value::Error(answer) if is_unknown(&answer) || answer.starts_with("NOPERM") => {
            session.slots(name).await?
        }
        Value::Error(answer) => return Err(session.refused("CLUSTER SHARDS", &answer)),
        shards => from_shards(name, seed, &shards).map_err(|reason| session.malformed(reason))?,
    };
    if told.members.is_empty() {
        return Err(session.malformed("it names no nodes"));
    }
    told.engine = Some(session.engine().await?);
    told.tls = seed.tls.is_some();
    Ok(told)
}

fn is_unknown(answer: &str) -> bool {
    answer.to_lowercase().contains("unknown subcommand")
}

/// How refusals of AUTH begin whose words are Redis' own.
const KNOWN_REFUSALS: [&str; 6] = [
    "WRONGPASS ",
    "NOPERM ",
    "ERR AUTH ",
    "ERR Client sent AUTH",
    "ERR invalid password",
    "ERR wrong number",
];

/// As much of a refusal of AUTH as can't repeat the password: a server that does not know the command, or a proxy, quotes
/// what it was sent.
fn telling(answer: &str) -> &str {
    if KNOWN_REFUSALS.iter().any(|known| answer.starts_with(known)) {
        return answer;
    }
    match answer.split(' ').next() {
        Some(code @ ("ERR" | "NOAUTH" | "LOADING" | "DENIED" | "MASTERDOWN")) => code,
        _ => "refused",
    }
}

struct Session<'a> {
    seed: &'a HostPort,
    stream: BufReader<Box<dyn Stream + Send>>,
}

impl Session<'_> {
    async fn log_in(&mut self, seed: &RedisSeed) -> Result<(), InBandError> {
        let Some(secret) = &seed.password else { return Ok(()) };
        let password = reveal(secret)?;
        let answer = match &seed.username {
            Some(user) => self.call(&["AUTH", user, &password]).await?,
            None => self.call(&["AUTH", &password]).await?,
        };
        match answer {
            Value::Error(answer) => Err(self.refused("AUTH", telling(&answer))),
            _ => Ok(()),
        }
    }

    /// `CLUSTER SLOTS`, which leaves out replicas that are down: `CLUSTER INFO` tells whether any are.
    async fn slots(&mut self, name: &str) -> Result<ClusterView, InBandError> {
        let slots = match self.call(&["CLUSTER", "SLOTS"]).await? {
            Value::Error(answer) => return Err(self.refused("CLUSTER SLOTS", &answer)),
            slots => slots,
        };
        let mut told = from_slots(name, self.seed, &slots).map_err(|reason| self.malformed(reason))?;
        let info = self.call(&["CLUSTER", "INFO"]).await?;
        let known = info.text().and_then(|info| field(info, "cluster_known_nodes")?.parse().ok());
        if told.doubt.is_none() && known.is_some_and(|known: usize| known > told.members.len()) {
            let shown = told.members.len();
            told.doubt =
                Some(format!("{} knows {} nodes, but shows {shown}", self.seed, known.unwrap_or_default()));
        }
        Ok(told)
    }

    /// Redis or Valkey; who may not ask is told Redis.
    async fn engine(&mut self) -> Result<Engine, InBandError> {
        let info = self.call(&["INFO", "server"]).await?;
        let is_valkey = info.text().is_some_and(|info| field(info, "valkey_version").is_some());
        Ok(if is_valkey { Engine::Valkey } else { Engine::Redis })
    }

    async fn call(&mut self, words: &[&str]) -> Result<Value, InBandError> {
        let answer = async {
            self.stream.write_all(&resp::command(words)).await?;
            self.stream.flush().await?;
            resp::read(&mut self.stream).await
        };
        let seed = self.seed.clone();
        answer.await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => InBandError::Malformed { seed, reason: error.to_string() },
            _ => InBandError::Connection { seed, source: error },
        })
    }

    fn malformed(&self, reason: &str) -> InBandError {
        InBandError::Malformed { seed: self.seed.clone(), reason: reason.to_owned() }
    }

    fn refused(&self, command: &'static str, answer: &str) -> InBandError {
        InBandError::Refused { seed: self.seed.clone(), command, answer: plain(answer) }
    }
}

/// A line `key:value` of INFO.
pub(super) fn field<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
}

/// A server without cluster mode is one node, the seed itself.
fn standalone(name: &str, seed: &HostPort) -> ClusterView {
    let member = Member {
        id: name.to_owned(),
        shard: None,
        role: None,
        status: "available".to_owned(),
        host: seed.host.clone(),
        port: seed.port,
    };
    ClusterView { members: vec![member], ..ClusterView::default() }
}

const NOT_SLOTS: &str = "its slots are not ranges of 0 to 16383";
const TWO_OWNERS: &str = "a slot has two owners";

/// Reads the answer of `CLUSTER SHARDS`.
fn from_shards(name: &str, seed: &RedisSeed, answer: &Value) -> Result<ClusterView, &'static str> {
    let with_ranges = |shard| Some((ranges(shard)?, shard));
    let shards: Option<Vec<(Vec<SlotRange>, &Value)>> = answer.list().iter().map(with_ranges).collect();
    let mut shards = shards.ok_or(NOT_SLOTS)?;
    // A shard without slots comes last.
    shards.sort_by_key(|(ranges, _)| (ranges.is_empty(), ranges.iter().min().copied()));
    let mut told = ClusterView::default();
    for (index, (_, shard)) in shards.iter().enumerate() {
        for node in shard.get("nodes").map(Value::list).unwrap_or_default() {
            match shard_member(name, seed, node, &number(index)) {
                Some(member) => told.members.push(member),
                None => told.doubt = Some("it names a node without id or port".to_owned()),
            }
        }
    }
    let covered = covered(shards.into_iter().flat_map(|(ranges, _)| ranges)).ok_or(TWO_OWNERS)?;
    told.doubt = told.doubt.or_else(|| uncovered(&seed.address, covered));
    Ok(told)
}

/// A seed that does not see every slot may be cut off from its cluster, and then it does not know the nodes either.
fn uncovered(seed: &HostPort, covered: u16) -> Option<String> {
    (covered < SLOTS).then(|| format!("{seed} sees {covered} of {SLOTS} slots: it may not know every node"))
}

fn ranges(shard: &Value) -> Option<Vec<SlotRange>> {
    let slots = shard.get("slots").map(Value::list).unwrap_or_default();
    let range = |range: &[Value]| match range {
        [first, last] => SlotRange::read(first, last),
        _ => None,
    };
    slots.chunks(2).map(range).collect()
}

/// Shards are numbered in the order of their slots, as ElastiCache numbers its node groups when it makes them.
fn number(index: usize) -> String {
    format!("{:04}", index + 1)
}

fn shard_member(name: &str, seed: &RedisSeed, node: &Value, shard: &str) -> Option<Member> {
    let text =
        |key: &str| node.get(key).and_then(Value::text).filter(|text| !text.is_empty() && *text != "?");
    // With TLS the plain port may be closed, and the other way round.
    let ports = if seed.tls.is_some() { ["tls-port", "port"] } else { ["port", "tls-port"] };
    let port = ports.iter().find_map(|key| port(node.get(key)?))?;
    let host = text("hostname").or(text("endpoint")).or(text("ip")).unwrap_or(&seed.address.host);
    Some(Member {
        id: member_id(name, host, text("id")?),
        shard: Some(shard.to_owned()),
        role: text("role").and_then(role),
        status: text("health")
            .map_or("available", |health| if health == "online" { "available" } else { health })
            .to_owned(),
        host: host.to_owned(),
        port,
    })
}

/// Reads the answer of `CLUSTER SLOTS`: ranges, each with its primary and then its replicas as `[host, port, id, ...]`.
fn from_slots(name: &str, seed: &HostPort, answer: &Value) -> Result<ClusterView, &'static str> {
    let ranges: Option<Vec<(SlotRange, &[Value])>> = answer.list().iter().map(slot_range).collect();
    let mut ranges = ranges.ok_or(NOT_SLOTS)?;
    ranges.sort_by_key(|(range, _)| *range);
    let mut told = ClusterView::default();
    // A shard with scattered slots comes once for each range.
    let mut shards: BTreeMap<String, usize> = BTreeMap::new();
    for (_, nodes) in &ranges {
        let key =
            nodes.first().and_then(|primary| primary.list().get(2)?.text()).unwrap_or_default().to_owned();
        let next = shards.len();
        if shards.contains_key(&key) {
            continue;
        }
        shards.insert(key, next);
        for (place, node) in nodes.iter().enumerate() {
            let role = if place == 0 { Role::Primary } else { Role::Replica };
            match slot_member(name, seed, node, role, &number(next)) {
                Some(member) => told.members.push(member),
                None => told.doubt = Some("it names a node without id or port".to_owned()),
            }
        }
    }
    let covered = covered(ranges.iter().map(|(range, _)| *range)).ok_or(TWO_OWNERS)?;
    told.doubt = told.doubt.or_else(|| uncovered(seed, covered));
    Ok(told)
}

fn slot_range(entry: &Value) -> Option<(SlotRange, &[Value])> {
    match entry.list() {
        [first, last, nodes @ ..] => Some((SlotRange::read(first, last)?, nodes)),
        _ => None,
    }
}

fn slot_member(name: &str, seed: &HostPort, node: &Value, role: Role, shard: &str) -> Option<Member> {
    let [host, number, id, ..] = node.list() else { return None };
    // No host means: the one that you asked.
    let host = host.text().filter(|host| !host.is_empty() && *host != "?").unwrap_or(&seed.host);
    Some(Member {
        id: member_id(name, host, id.text()?),
        shard: Some(shard.to_owned()),
        role: Some(role),
        status: "available".to_owned(),
        host: host.to_owned(),
        port: port(number)?,
    })
}

/// ElastiCache's names outlive a node; elsewhere the node's own random id has to do.
fn member_id(name: &str, host: &str, id: &str) -> String {
    match elasticache_label(host) {
        Some(label) => label.to_owned(),
        None => format!("{name}-{}", id.chars().take(ID_DIGITS).collect::<String>()),
    }
}

fn port(value: &Value) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(value.integer()?).ok()?)
}

pub(super) fn role(word: &str) -> Option<Role> {
    match word {
        "master" | "primary" => Some(Role::Primary),
        "replica" | "slave" => Some(Role::Replica),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn seed() -> RedisSeed {
        let address = "10.0.1.230:6379".parse().unwrap();
        RedisSeed { address, tls: None, username: None, password: None }
    }

    fn shard(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        let slots = Value::List(vec![Value::Integer(first), Value::Integer(last)]);
        Value::List(vec![text("slots"), slots, text("nodes"), Value::List(nodes)])
    }

    fn node(id: &str, host: &str, role: &str, health: &str) -> Value {
        let pairs = [("id", id), ("ip", host), ("endpoint", host), ("role", role), ("health", health)];
        let mut flat: Vec<Value> = pairs.iter().flat_map(|(key, value)| [text(key), text(value)]).collect();
        flat.extend([text("port"), Value::Integer(6379), text("tls-port"), Value::Integer(6380)]);
        Value::List(flat)
    }

    #[test]
    fn shards_are_numbered_by_their_slots() {
        let answer = Value::List(vec![
            shard(8192, 16383, vec![node("ccccccccccccdd", "10.0.1.232", "master", "online")]),
            shard(
                0,
                8191,
                vec![
                    node("aaaaaaaaaaaadd", "10.0.1.230", "master", "online"),
                    node("bbbbbbbbbbbbdd", "10.0.1.231", "replica", "failed"),
                ],
            ),
        ]);
        let told = from_shards("lab", &seed(), &answer).unwrap();
        let lines: Vec<String> = told
            .members
            .iter()
            .map(|m| {
                format!("{} {} {} {} {}", m.id, m.shard.as_ref().unwrap(), m.role.unwrap(), m.status, m.host)
            })
            .collect();
        let expected = [
            "lab-aaaaaaaaaaaa 0001 primary available 10.0.1.230",
            "lab-bbbbbbbbbbbb 0001 replica failed 10.0.1.231",
            "lab-cccccccccccc 0002 primary available 10.0.1.232",
        ];
        assert_eq!((lines, told.doubt), (expected.map(str::to_owned).into(), None));
    }

    #[test]
    fn a_seed_that_sees_only_itself_is_not_believed_about_the_rest() {
        let answer =
            Value::List(vec![shard(0, 99, vec![node("aaaaaaaaaaaadd", "10.0.1.230", "master", "online")])]);
        let doubt = from_shards("lab", &seed(), &answer).unwrap().doubt.unwrap();
        assert_eq!(doubt, "10.0.1.230:6379 sees 100 of 16384 slots: it may not know every node");
    }

    #[test]
    fn with_tls_the_tls_port_counts() {
        let answer = Value::List(vec![shard(
            0,
            16383,
            vec![node("aaaaaaaaaaaadd", "10.0.1.230", "master", "online")],
        )]);
        let with_tls = RedisSeed { tls: Some(crate::TlsTrust::default()), ..seed() };
        let port = |seed: &RedisSeed| from_shards("lab", seed, &answer).unwrap().members[0].port.get();
        assert_eq!((port(&seed()), port(&with_tls)), (6379, 6380));
    }

    #[test]
    fn elasticache_names_give_the_api_s_own_ids() {
        let host = "my-cluster-0001-002.my-cluster.abc123.use2.cache.amazonaws.com";
        let answer =
            Value::List(vec![shard(0, 16383, vec![node("aaaaaaaaaaaadd", host, "replica", "online")])]);
        let member = from_shards("lab", &seed(), &answer).unwrap().members.remove(0);
        assert_eq!((member.id.as_str(), member.host.as_str()), ("my-cluster-0001-002", host));
    }

    #[test]
    fn slots_tell_each_shard_once() {
        let node = |host: &str, id: &str| Value::List(vec![text(host), Value::Integer(6379), text(id)]);
        let range = |first, last, nodes: Vec<Value>| {
            Value::List([vec![Value::Integer(first), Value::Integer(last)], nodes].concat())
        };
        let (a, b, c) = (node("10.0.1.230", "aaaa"), node("10.0.1.231", "bbbb"), node("", "cccc"));
        let answer = Value::List(vec![
            range(100, 16383, vec![c.clone()]),
            range(0, 49, vec![a.clone(), b.clone()]),
            range(50, 99, vec![a, b]),
        ]);
        let told = from_slots("lab", &seed().address, &answer).unwrap();
        let ids: Vec<&str> = told.members.iter().map(|member| member.id.as_str()).collect();
        assert_eq!((ids, told.doubt), (vec!["lab-aaaa", "lab-bbbb", "lab-cccc"], None));
        // A node that does not know its own address is the one that was asked.
        assert_eq!(told.members[2].host, "10.0.1.230");
    }

    #[test]
    fn nonsense_is_doubt_not_nodes() {
        let answer = Value::List(vec![shard(0, 16383, vec![Value::List(vec![text("id")]), Value::Null])]);
        let told = from_shards("lab", &seed(), &answer).unwrap();
        assert_eq!((told.members.len(), told.doubt.is_some()), (0, true));
        assert_eq!(from_slots("lab", &seed().address, &Value::Null).unwrap().members.len(), 0);
    }

    #[test]
    fn impossible_slots_make_the_answer_nonsense() {
        let node = || vec![node("aaaaaaaaaaaadd", "10.0.1.230", "master", "online")];
        for (first, last) in [(0, i64::MAX), (i64::MIN, 16_383), (100, 99), (0, 16_384), (-1, 16_383)] {
            let shards = Value::List(vec![shard(first, last, node())]);
            assert_eq!(from_shards("lab", &seed(), &shards), Err(NOT_SLOTS), "{first}-{last}");
            let range = Value::List(vec![Value::Integer(first), Value::Integer(last)]);
            let slots = from_slots("lab", &seed().address, &Value::List(vec![range]));
            assert_eq!(slots, Err(NOT_SLOTS), "{first}-{last}");
        }
        let twice = Value::List(vec![shard(0, 16_383, node()), shard(7, 7, node())]);
        assert_eq!(from_shards("lab", &seed(), &twice), Err(TWO_OWNERS));
        let odd = Value::List(vec![text("slots"), Value::List(vec![Value::Integer(0)])]);
        assert_eq!(from_shards("lab", &seed(), &Value::List(vec![odd])), Err(NOT_SLOTS));
    }
}
