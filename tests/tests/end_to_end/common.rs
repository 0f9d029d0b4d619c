//! What every claim is made of.

use std::io;
use std::net::SocketAddrV4;

use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::redis::Redis;
use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::{Lab, PUBLIC};
use serde_json::Value;

/// A lab with AWS's example, `my-cluster` of three nodes at 10.0.1.230 to .232, and cachenat applied to it: they
/// are on the ports 6379 to 6381.
pub(crate) fn applied() -> Lab {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    lab.cachenat(&["apply"]).exits(0);
    lab
}

/// Connects to a port of the gateway's public address.
pub(crate) fn dial(from: &Namespace, port: u16) -> io::Result<Redis> {
    Redis::connect(from, SocketAddrV4::new(PUBLIC, port))
}

/// The client's connection to a port, which must be open to it.
#[track_caller]
pub(crate) fn open(lab: &Lab, port: u16) -> Redis {
    dial(&lab.network.client, port).unwrap_or_else(|error| panic!("the client at port {port}: {error}"))
}

/// Whose server the client reaches on a port.
#[track_caller]
pub(crate) fn reached(lab: &Lab, port: u16) -> String {
    open(lab, port).info("run_id").unwrap()
}

/// cachenat's table as `nft -j -a` has it: with every handle and counter.
pub(crate) fn table(lab: &Lab) -> Value {
    let mut nft = lab.network.nat.command("nft");
    serde_json::from_str(&run(nft.args(["-j", "-a", "list", "table", "inet", "cachenat"]))).unwrap()
}

/// A table less the elements that name one of the addresses, so that the rest can be compared.
pub(crate) fn without(mut table: Value, addresses: &[&str]) -> Value {
    let names = |element: &Value| {
        addresses.iter().any(|address| element.to_string().contains(&format!("\"{address}\"")))
    };
    for object in table["nftables"].as_array_mut().unwrap() {
        for body in object.as_object_mut().unwrap().values_mut() {
            if let Some(elements) = body.get_mut("elem").and_then(Value::as_array_mut) {
                elements.retain(|element| !names(element));
            }
        }
    }
    table
}
