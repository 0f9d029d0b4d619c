//! Redis Cluster: three masters and three replicas, which tell clients of each other by private addresses.

use cachenat_tests::lab::Lab;

use crate::program::{Library, Running};

const TRIES: &str = include_str!("programs/tries.mjs");

const LIBRARIES: [Library; 6] = [
    Library { format: "redis-py", program: &[include_str!("programs/redis_py.py")] },
    Library { format: "valkey-py", program: &[include_str!("programs/redis_py.py")] },
    Library { format: "valkey-glide-python", program: &[include_str!("programs/valkey_glide.py")] },
    Library { format: "ioredis", program: &[TRIES, include_str!("programs/ioredis.mjs")] },
    Library { format: "node-redis", program: &[TRIES, include_str!("programs/node_redis.mjs")] },
    Library { format: "valkey-glide-node", program: &[TRIES, include_str!("programs/valkey_glide.mjs")] },
];

fn applied() -> Lab {
    let mut lab = Lab::new();
    lab.add_cluster("shards", 3);
    lab.cachenat(&["apply"]).exits(0);
    lab
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn what_is_pasted_outlives_a_failover_and_the_replacement_of_a_node() {
    let mut lab = applied();
    let start = |library| Running::start(&lab, library, "running");
    let mut running: Vec<Running> = LIBRARIES.iter().map(start).collect();
    running.iter_mut().for_each(|program| program.says("before"));

    lab.replace_cluster_node("shards-0001-001");
    lab.cachenat(&["apply"]).exits(0);

    running.iter_mut().for_each(Running::go_on);
    running.iter_mut().for_each(|program| program.says("after"));
    running.into_iter().for_each(|program| drop(program.ends()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn what_is_printed_after_a_replacement_reaches_every_master_and_every_replica() {
    let mut lab = applied();
    lab.replace_cluster_node("shards-0001-001");
    lab.cachenat(&["apply"]).exits(0);
    for library in &LIBRARIES {
        for node in lab.nodes() {
            node.redis().call(&["CONFIG", "RESETSTAT"]).unwrap();
        }
        let mut program = Running::start(&lab, library, "fresh");
        program.says("before");
        program.ends();
        for node in lab.nodes() {
            let asked = node.redis().call(&["INFO", "commandstats"]).unwrap();
            assert!(asked.contains("cmdstat_get:"), "{} read nothing from {}", library.format, node.id);
        }
    }
}
