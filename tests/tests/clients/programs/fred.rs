// Goes on from the text of --format fred, which is the module caches.
mod caches;

use std::env;
use std::io;
use std::time::{Duration, Instant};

use fred::prelude::*;
use tokio::time::sleep;

fn keys() -> impl Iterator<Item = String> {
    let prefix = env::args().nth(1).unwrap();
    (0..300).map(move |number| format!("{prefix}:{number}"))
}

// Retries for the given number of seconds.
async fn settled<T>(mut act: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let end = Instant::now() + Duration::from_secs(env::args().nth(2).unwrap().parse().unwrap());
    loop {
        match act().await {
            Ok(value) => return value,
            Err(error) if Instant::now() > end => panic!("{error}"),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn write_and_read(client: &Client, value: &str) {
    for key in keys() {
        settled(async || client.set::<(), _, _>(&key, value, None, None, false).await).await;
    }
    for key in keys() {
        assert_eq!(settled(async || client.get::<String, _>(&key).await).await, value, "{key}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let client = caches::shards_cache().await.unwrap();
    write_and_read(&client, "before").await;
    for key in keys() {
        let end = Instant::now() + Duration::from_secs(5);
        while client.replicas().get::<Option<String>, _>(&key).await.unwrap().as_deref() != Some("before") {
            assert!(Instant::now() < end, "{key} never came to a replica");
        }
    }
    println!("before");
    if io::stdin().read_line(&mut String::new()).unwrap() > 0 {
        write_and_read(&client, "after").await;
        println!("after");
    }
}
