//! How long a large account takes, and how much memory.

use std::time::{Duration, Instant};

use cachenat_tests::fake_aws::{Scenario, shapes::Group};
use nix::sys::resource::{UsageWho, getrusage};

use crate::setup::Machine;

const GROUPS: usize = 300;
const CALL: Duration = Duration::from_millis(50);
/// 900 member clusters, 100 an answer.
const PAGES: u32 = 9;

#[test]
#[ignore = "a measurement of the release build, in a network namespace: cargo test --release -- --ignored nine_hundred"]
fn nine_hundred_nodes_take_the_longest_chain_of_pages_and_little_more() {
    let mut scenario = Scenario { delay_ms: 50, ..Scenario::default() };
    let groups: Vec<Group> = (0..GROUPS).map(|n| Group::new(&format!("cluster-{n:03}"), 3)).collect();
    groups.iter().for_each(|group| group.add_to(&mut scenario));
    let machine = Machine::new(scenario, "nameserver 127.0.0.1\n");
    for (n, group) in groups.iter().enumerate() {
        for (m, (_, member)) in group.members().iter().enumerate() {
            machine.dns.point(&group.host(member), &format!("10.{m}.{}.{}", n / 200, n % 200));
        }
    }

    let sources: String =
        groups.iter().map(|group| format!("  - replication_group: {}\n", group.id)).collect();
    let discover = || {
        let began = Instant::now();
        let inventory = machine.discover(&sources);
        let took = began.elapsed();
        assert_eq!(inventory.nodes.iter().filter(|node| node.addresses.len() == 1).count(), 3 * GROUPS);
        took
    };
    let mut times: Vec<Duration> = (0..5).map(|_| discover()).collect();
    times.sort();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    println!("{} groups, {} nodes: median {:?} of {times:?}, peak {peak} KiB", GROUPS, 3 * GROUPS, times[2]);
    assert!(times[2] < CALL * PAGES + Duration::from_millis(300), "{times:?}");
    assert!(peak < 40 << 10, "{peak} KiB");
}
