// Goes on from the text of --format redis-rs, which is the module caches.
mod caches;

use std::env;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::Commands as _;
use redis::cluster::ClusterConnection;
use redis::cluster_read_routing::RandomReplicaStrategy;

fn keys() -> impl Iterator<Item = String> {
    let prefix = env::args().nth(1).unwrap();
    (0..300).map(move |number| format!("{prefix}:{number}"))
}

// Retries for the given number of seconds.
fn settled<T>(mut act: impl FnMut() -> redis::RedisResult<T>) -> T {
    let end = Instant::now() + Duration::from_secs(env::args().nth(2).unwrap().parse().unwrap());
    loop {
        match act() {
            Ok(value) => return value,
            Err(error) if Instant::now() > end => panic!("{error}"),
            Err(_) => sleep(Duration::from_millis(100)),
        }
    }
}

fn write_and_read(connection: &mut ClusterConnection, value: &str) {
    for key in keys() {
        settled(|| connection.set::<_, _, ()>(&key, value));
    }
    for key in keys() {
        assert_eq!(settled(|| connection.get::<_, String>(&key)), value, "{key}");
    }
}

fn main() {
    let mut connection = caches::shards_cache().build().unwrap().get_connection().unwrap();
    write_and_read(&mut connection, "before");
    let reader = caches::shards_cache().read_routing_strategy(RandomReplicaStrategy);
    let mut reader = reader.build().unwrap().get_connection().unwrap();
    for key in keys() {
        let end = Instant::now() + Duration::from_secs(5);
        while reader.get::<_, Option<String>>(&key).unwrap().as_deref() != Some("before") {
            assert!(Instant::now() < end, "{key} never came to a replica");
        }
    }
    println!("before");
    if io::stdin().read_line(&mut String::new()).unwrap() > 0 {
        write_and_read(&mut connection, "after");
        println!("after");
    }
}
