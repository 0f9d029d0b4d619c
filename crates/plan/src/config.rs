//! What of the configuration a plan goes by.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use discovery::SourceName;
use ipnet::IpNet;
use rules::ForwardId;

use crate::leases::ListenPort;

/// The configuration, as far as a plan depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanConfig {
    /// The lists of clients, each once: who may connect to the nodes of the sources that name it.
    pub clients: Vec<Vec<IpNet>>,
    /// The TCP ports of sources that have none of their own, first and last included.
    pub ports: RangeInclusive<u16>,
    /// Where nodes come from, in the order of the file: nodes of earlier sources get their ports first.
    pub sources: Vec<PlanSource>,
    /// Listeners fixed by hand; one without an address is on the gateway's first.
    pub pins: BTreeMap<ForwardId, ListenPort>,
    /// How many percent of a source's nodes one answer may remove, 0 to 100 (`removal_guard`).
    pub max_removed_percent: u8,
    /// Whether established flows are offered to the kernel's fast path.
    pub flowtable: bool,
    /// Whether what is no client's connection to a cache is forwarded too; `None`: that is left to the host.
    pub forward_others: Option<bool>,
}

/// A source of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanSource {
    /// `replication_group/my-cluster`.
    pub name: SourceName,
    /// The TCP ports that are its own, first and last included.
    pub ports: Option<RangeInclusive<u16>>,
    /// Which of [`PlanConfig::clients`] may connect to its nodes.
    pub list: usize,
    /// Whether it is asked, and so can answer wrongly; the configuration itself spells out the nodes of the others.
    pub is_asked: bool,
}

impl PlanConfig {
    /// The ports that are a source's own, and the key that sets those that it draws from, for messages.
    pub(crate) fn pool(&self, source: &SourceName) -> (Option<&RangeInclusive<u16>>, String) {
        let own = self.sources.iter().enumerate().find(|(_, other)| other.name == *source);
        match own.and_then(|(index, source)| Some((index, source.ports.as_ref()?))) {
            Some((index, ports)) => (Some(ports), format!("sources[{index}].ports")),
            None => (None, "ports".to_owned()),
        }
    }

    /// Which of the lists of clients a source's nodes are for: the first, unless the configuration says otherwise.
    pub fn list_of(&self, source: &SourceName) -> usize {
        self.sources.iter().find(|other| other.name == *source).map_or(0, |source| source.list)
    }

    /// Whether a pool or a pin takes the port.
    pub fn uses(&self, port: NonZeroU16) -> bool {
        let pools = self.sources.iter().filter_map(|source| source.ports.as_ref());
        let mut pools = pools.chain([&self.ports]);
        pools.any(|ports| ports.contains(&port.get())) || self.pins.values().any(|pin| pin.port == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::config;

    #[test]
    fn the_key_of_a_pool_is_where_it_was_written() {
        let pins = [("a-001".parse().unwrap(), "9000".parse().unwrap())].into();
        let config = PlanConfig { ports: 7000..=7099, pins, ..config() };
        assert_eq!(config.pool(&config.sources[0].name).1, "sources[0].ports");
        assert_eq!(config.pool(&config.sources[1].name), (None, "ports".to_owned()));
        let uses = |port| config.uses(NonZeroU16::new(port).unwrap());
        assert!([6379, 6382, 7000, 9000].into_iter().all(uses));
        assert!(![6383, 6999, 7100].into_iter().any(uses));
    }
}
