// redis-rs 1.5 or later. Cargo.toml:
//   redis = { version = "1.5", features = ["cluster", "tls-rustls"] }   # async: cluster-async, tokio-rustls-comp
//   rustls = "0.23"                                                     # for TLS
@if clusters@
use std::time::Duration;

use redis::cluster::{ClusterClientBuilder, NodeAddress};
@endif clusters@
@if singles@
use redis::{Client, RedisResult};
@endif singles@
@each caches@
@if cluster@

@if note@
// @note@
@endif note@
// @name@: what the cache calls its nodes, and what they are outside.
const @CACHE@_ADDRESSES: [((&str, u16), (&str, u16)); @count@] = [
@each inside@
    ((@inside@, @inside_port@), (@outside@, @port@)), // @label@
@endeach inside@
];

/// `@cache@_cache().build()?.get_connection()?`; with `.read_routing_strategy(...)` before it, reads go to replicas.
pub fn @cache@_cache() -> ClusterClientBuilder {
    let nodes = @CACHE@_ADDRESSES.map(|(inside, outside)| (node(inside), node(outside)));
    ClusterClientBuilder::new([
@each nodes@
        @uri@,
@endeach nodes@
    ])
    .node_address_map(nodes.into())
    .connection_timeout(Duration::from_secs(3))
}
@endif cluster@
@unless cluster@

// @name@
@if note@
// @note@
@endif note@
@each primary@

/// @label@. `@cache@_cache()?.get_connection_with_timeout(Duration::from_secs(3))?`.
pub fn @cache@_cache() -> RedisResult<Client> {
    Client::open(@uri@)
}
@endeach primary@
@if replicas@

/// Where reads may go as well.
pub fn @cache@_replicas() -> RedisResult<Vec<Client>> {
    Ok(vec![
@each replicas@
        Client::open(@uri@)?, // @label@
@endeach replicas@
    ])
}
@endif replicas@
@endunless cluster@
@endeach caches@
@if clusters@

fn node((host, port): (&str, u16)) -> NodeAddress {
    NodeAddress::new(host, port)
}
@endif clusters@
