// Goes on from the text of --format redis-rs, which is the module caches.
mod caches;

use std::time::Duration;

use redis::Commands as _;

fn main() {
    let connect = |client: redis::Client| client.get_connection_with_timeout(Duration::from_secs(3)).unwrap();
    connect(caches::my_cluster_cache().unwrap()).set::<_, _, ()>("greeting", "hello").unwrap();
    for mut replica in caches::my_cluster_replicas().unwrap().into_iter().map(connect) {
        while replica.get::<_, Option<String>>("greeting").unwrap().as_deref() != Some("hello") {}
    }
}
