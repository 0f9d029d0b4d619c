//! Memcached: a static list of nodes.

use std::collections::BTreeSet;

use cachenat_tests::lab::Lab;

use crate::program::{Language, Library, Running};

const PYMEMCACHE: Library = Library {
    language: Language::Python,
    format: "pymemcache",
    program: &[include_str!("programs/pymemcache.py")],
};

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn pymemcache_spreads_its_keys_over_every_node() {
    let mut lab = Lab::new();
    lab.add_memcached("sessions", 3);
    lab.cachenat(&["apply"]).exits(0);
    let printed = Running::start(&lab, &PYMEMCACHE, "keys", 0).ends();
    let servers: BTreeSet<&str> = printed.lines().collect();
    assert_eq!(servers.len(), 3, "{printed}");
}
