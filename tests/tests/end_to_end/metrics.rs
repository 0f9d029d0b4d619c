//! `watch --metrics`: correct in Prometheus' own parser, and never blocking the watch.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::wait::wait_for;
use serde_json::Value;

use crate::common::{applied, in_force, read_metrics, spelled_out, target, value};

const ADDRESS: &str = "127.0.0.1:9379";

/// `cachenat watch` that serves metrics, once it has converged.
fn watching(lab: &Lab, address: &str) -> Daemon {
    let mut command = lab.cachenat_command();
    let daemon = Daemon::start(command.args(["watch", "--interval", "1h", "--metrics", address]));
    wait_for("the first convergence", || {
        let text = get(lab, "/metrics")?;
        text.contains("cachenat_watch_last_success_timestamp_seconds ").then_some(())
    });
    daemon
}

/// A connection from the gateway's own loopback.
fn connect(lab: &Lab) -> Option<TcpStream> {
    let address: SocketAddrV4 = ADDRESS.parse().unwrap();
    lab.network.nat.connect(address).ok()
}

/// What is answered to these bytes, to the end of the connection.
fn answer(lab: &Lab, request: &[u8]) -> Option<String> {
    let mut stream = connect(lab)?;
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    Some(answer)
}

/// The body at a path, which has to be there.
fn get(lab: &Lab, path: &str) -> Option<String> {
    let answer = answer(lab, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    Some(body.to_owned())
}

/// Ends another thread's loop.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn scraped(lab: &Lab) -> Vec<Value> {
    read_metrics(lab, &get(lab, "/metrics").unwrap())
}

/// How many attempts ended so.
fn syncs(samples: &[Value], result: &str) -> f64 {
    let is = |sample: &&Value| sample[2] == "cachenat_watch_syncs_total" && sample[3]["result"] == result;
    samples.iter().find(is).unwrap()[4].as_f64().unwrap()
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn watch_serves_its_metrics_with_the_status() {
    let mut lab = applied();
    let _daemon = watching(&lab, ADDRESS);
    let found = scraped(&lab);
    assert!(found.iter().all(|sample| sample[0] != "unknown" && sample[1] != ""), "{found:?}");
    assert_eq!(value(&found, "cachenat_listener_connections_total", "my-cluster-001"), 0.0);
    assert_eq!(value(&found, "cachenat_watch_status_readable", ""), 1.0);
    assert_eq!((syncs(&found, "changed"), syncs(&found, "in_step")), (0.0, 1.0), "{found:?}");
    assert_eq!(value(&found, "cachenat_watch_commit_seconds_count", ""), 0.0);

    lab.network.nat.nft("delete element inet cachenat forward4 { 10.0.0.55 . 6380 }");
    wait_for("the repair", || (syncs(&scraped(&lab), "changed") == 1.0).then_some(()));
    let found = scraped(&lab);
    assert_eq!(value(&found, "cachenat_watch_foreign_changes_total", ""), 1.0);
    assert_eq!(value(&found, "cachenat_watch_commit_seconds_count", ""), 0.0, "no answer led to it");

    lab.replace_node("my-cluster-002");
    wait_for("the new node", || (target(&lab, 6380)? == "10.0.1.233:6379").then_some(()));
    wait_for("the commit to be counted", || {
        (value(&scraped(&lab), "cachenat_watch_commit_seconds_count", "") == 1.0).then_some(())
    });
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn our_commits_are_not_counted_as_foreign() {
    let lab = applied();
    let _daemon = watching(&lab, ADDRESS);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // However this ends, the writer ends with it.
        let _end = Ends(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                lab.network.nat.nft("add table inet foreign\ndelete table inet foreign");
            }
        });
        for _ in 0..5 {
            lab.network.nat.nft("delete element inet cachenat forward4 { 10.0.0.55 . 6380 }");
            wait_for("the repair", || target(&lab, 6380));
        }
        wait_for("the repairs to be counted", || (syncs(&scraped(&lab), "changed") == 5.0).then_some(()));
    });
    assert_eq!(value(&scraped(&lab), "cachenat_watch_foreign_changes_total", ""), 5.0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn source_and_kernel_failures_are_exported() {
    let mut lab = applied();
    lab.stop_api();
    let _daemon = watching(&lab, ADDRESS);
    assert_eq!(value(&scraped(&lab), "cachenat_watch_source_failures_total", ""), 1.0);
    assert!(value(&scraped(&lab), "cachenat_source_failing_seconds", "") >= 0.0);

    // A table of this name that we did not make.
    lab.network.nat.nft("delete table inet cachenat\nadd table inet cachenat");
    wait_for("the failure", || (syncs(&scraped(&lab), "failed") >= 1.0).then_some(()));
    assert_eq!(value(&scraped(&lab), "cachenat_watch_status_readable", ""), 0.0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn slow_scrapes_block_nothing() {
    let lab = applied();
    let daemon = watching(&lab, ADDRESS);
    // Far more than are served at once; each may take 5 s.
    let mut slow: Vec<TcpStream> = (0..40).map(|_| connect(&lab).unwrap()).collect();
    for stream in &mut slow {
        // The oldest have had to give way.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:");
    }
    let mut scrape = connect(&lab).unwrap();
    scrape.set_read_timeout(Some(std::time::Duration::from_secs(4))).unwrap();
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    scrape.read_exact(&mut [0; 12]).expect("it waits for no slow one");
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
        (&b"GET /metrics HTTP/1.1\r\n".repeat(400)[..8 * 1024], "400"),
    ] {
        let answer = answer(&lab, request).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    lab.network.nat.nft("flush ruleset");
    wait_for("the table to be back", || in_force(&lab).contains("10.0.1.231").then_some(()));
    assert_eq!(value(&scraped(&lab), "cachenat_installed", ""), 1.0);
    // Each slow one has had its chance in the end, and is closed.
    for stream in &mut slow {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let end = stream.read(&mut [0; 64]).map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)), "{end:?}");
    }
    assert!(!daemon.said().iter().any(|line| line.contains("metrics")), "{:?}", daemon.said());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_public_metrics_address_is_warned_about() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    let daemon = watching(&lab, "0.0.0.0:9379");
    daemon.says("warning: --metrics 0.0.0.0:9379: whoever reaches that address can read the metrics");
    let run = lab.cachenat(&["watch", "--metrics", "9379"]).exits(2);
    assert!(run.stderr.starts_with("error: --metrics 127.0.0.1:9379\n"), "{}", run.stderr);
    drop(daemon);
    lab.cachenat(&["remove"]).exits(0);
    fs::remove_dir_all(lab.dir().join("state")).unwrap();
    // A port of the pool that we listen on ourselves is given to no node.
    let _daemon = Daemon::start(lab.cachenat_command().args(["watch", "--metrics", "10.0.0.55:6379"]));
    wait_for("the node", || in_force(&lab).contains("10.0.0.55 . 6380 ").then_some(()));
}
