// fred 10. Cargo.toml:
//   fred = { version = "10", features = ["dns", "replicas"] }   # for TLS: enable-rustls
//   async-trait = "0.1"
//   tokio = { version = "1", features = ["net"] }
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::bytes_utils::Str;
use fred::prelude::*;
use fred::types::Resolve;

type Addresses = &'static [((&'static str, u16), (&'static str, u16))];
@each caches@

// @name@: what the cache calls its nodes, and what they are outside.
const @CACHE@_ADDRESSES: [((&str, u16), (&str, u16)); @count@] = [
@each inside@
    ((@inside@, @inside_port@), (@outside@, @port@)), // @label@
@endeach inside@
];
@each clients@

/// @label@, connected.
pub async fn @cache@_@client@() -> Result<Client, Error> {
    let config = Config {
@if cluster@
        server: ServerConfig::new_clustered(vec![
@each nodes@
            (@seed@, @seed_port@),
@endeach nodes@
        ]),
@endif cluster@
@unless cluster@
        server: ServerConfig::new_centralized(@seed@, @seed_port@),
@endunless cluster@
@if tls@
        tls: Some(TlsConnector::default_rustls()?.into()),
@endif tls@
        ..Config::default()
    };
    outside(config, &@CACHE@_ADDRESSES).await
}
@endeach clients@
@endeach caches@

struct Outside(Addresses);

#[async_trait]
impl Resolve for Outside {
    async fn resolve(&self, host: Str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let known = self.0.iter().find(|(inside, _)| *inside == (&*host, port));
        let address = known.map_or((&*host, port), |(_, outside)| *outside);
        Ok(tokio::net::lookup_host(address).await?.collect())
    }
}

async fn outside(config: Config, addresses: Addresses) -> Result<Client, Error> {
    let client = Builder::from_config(config)
        .with_connection_config(|config| config.connection_timeout = Duration::from_secs(3))
        .set_policy(ReconnectPolicy::new_exponential(0, 100, 3_000, 2))
        .build()?;
    client.set_resolver(Arc::new(Outside(addresses))).await;
    client.init().await?;
    Ok(client)
}
