// Goes on from the text of --format fred, which is the module caches.
mod caches;

use fred::prelude::*;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let primary = caches::my_cluster_cache().await.unwrap();
    primary.set::<(), _, _>("greeting", "hello", None, None, false).await.unwrap();
    for replica in [caches::my_cluster_replica_1().await, caches::my_cluster_replica_2().await] {
        let replica = replica.unwrap();
        while replica.get::<Option<String>, _>("greeting").await.unwrap().as_deref() != Some("hello") {}
    }
}
