//! Who gets which listener, over random histories.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is not as it should be fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use plan::{Leases, ListenPort, Pool, Request, Timestamp, assign};
use proptest::prelude::*;
use rules::ForwardId;

fn id(number: u8) -> ForwardId {
    format!("my-cluster-{number:03}").parse().unwrap()
}

proptest! {
    #[test]
    fn listeners_are_unique_and_stay_with_their_node(
        steps in proptest::collection::vec(proptest::collection::btree_set(0u8..12, 0..8), 1..12),
        pins in proptest::collection::btree_map(0u8..12, 0usize..30, 0..2),
        has_several_addresses: bool,
    ) {
        let (addresses, ports) = match has_several_addresses {
            true => ((55u8..86).map(|last| Some(IpAddr::from([10, 0, 0, last]))).collect(), 6379..=6379),
            false => (vec![None], 100..=130),
        };
        let pool = Arc::new(Pool { addresses, ports, key: "ports".to_owned() });
        let listeners: Vec<ListenPort> = pool
            .ports
            .clone()
            .flat_map(|port| pool.addresses.iter().map(move |&address| (address, port)))
            .map(|(address, port)| ListenPort { address, port: NonZeroU16::new(port).unwrap() })
            .collect();
        let pins: BTreeMap<ForwardId, ListenPort> =
            pins.into_iter().map(|(number, at)| (id(number), listeners[at])).collect();
        let mut leases = Leases::default();
        let mut first: BTreeMap<ForwardId, ListenPort> = BTreeMap::new();
        for (now, nodes) in (0..).map(Timestamp::from_secs).zip(steps) {
            let request = |&number| Request { id: id(number), pool: Arc::clone(&pool), beside: None };
            let requests: Vec<Request> = nodes.iter().map(request).collect();
            let Ok(done) = assign(&requests, &pins, &BTreeSet::new(), leases, now) else {
                // Two pins on one listener are refused by the configuration; here the plan refuses them.
                prop_assert_eq!(pins.values().collect::<BTreeSet<_>>().len(), 1);
                return Ok(());
            };
            let holders = done.leases.holders();
            prop_assert_eq!(holders.len(), requests.len());
            prop_assert_eq!(holders.values().collect::<BTreeSet<_>>().len(), requests.len());
            for (id, listener) in holders {
                let before = *first.entry(id.clone()).or_insert(listener);
                prop_assert_eq!(before, listener, "{} changed its listener", id);
            }
            leases = done.leases;
        }
    }
}
