//! Memcached: a static list of nodes.

use std::collections::BTreeSet;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::shell::run_with_input;

use crate::compiled;
use crate::program::{Language, Library, Running, on_the_client};

const PYMEMCACHE: Library = Library {
    language: Language::Python,
    format: "pymemcache",
    program: &[include_str!("programs/pymemcache.py")],
};

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn keys_are_spread_over_every_node() {
    let mut lab = Lab::new();
    lab.add_memcached("sessions", 3);
    lab.cachenat(&["apply"]).exits(0);

    let source = include_str!("programs/libmemcached.c");
    let program = compiled::c(lab.dir(), "libmemcached", source, &["-lmemcached"]);
    let text = lab.cachenat(&["endpoints", "--format", "libmemcached"]).exits(0).stdout;
    let printed = run_with_input(on_the_client(&lab).arg(program), &text);
    let items: Vec<u32> = printed.lines().map(|line| line.parse().unwrap()).collect();
    assert!(items.len() == 3 && items.iter().all(|&items| items > 0), "{printed}");
    assert_eq!(items.iter().sum::<u32>(), 300);

    let printed = Running::start(&lab, &PYMEMCACHE, "keys", 0).ends();
    let servers: BTreeSet<&str> = printed.lines().collect();
    assert_eq!(servers.len(), 3, "{printed}");
}
