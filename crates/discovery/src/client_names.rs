//! The addresses of clients that are known by name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use thiserror::Error;

use crate::Options;
use crate::admission::refuse_as_client;
use crate::resolve::{LookupError, Resolver};

/// The most addresses of a name that are believed: more is no client but a service.
pub const MAX_CLIENT_ADDRESSES: usize = 16;

/// What a client's name stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAddresses {
    /// The addresses, sorted; at least one.
    pub addresses: Vec<IpAddr>,
    /// Addresses that no client on the internet has, and why.
    pub refused: Vec<String>,
}

/// Why a client's name stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientNameError {
    /// There is no answer, or none that can be used.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// More than [`MAX_CLIENT_ADDRESSES`].
    #[error("{found} addresses are too many for a client: at most {MAX_CLIENT_ADDRESSES} are believed")]
    TooMany {
        /// How many there were.
        found: usize,
    },
    /// None of its addresses is one that a client can have.
    #[error("{0}")]
    Refused(String),
}

/// Looks up what the names stand for, all at once, and for how long the shortest-lived answer holds.
///
/// The names are absolute: search domains are not appended. Addresses that are private, the VPC's or of a special range are
/// refused. Takes as long as [`crate::ResolverSettings::deadline`] at most, or a second more off EC2.
pub async fn client_addresses(
    names: &[String],
    options: &Options,
) -> (BTreeMap<String, Result<ClientAddresses, ClientNameError>>, Option<Duration>) {
    let resolver = Resolver::new(&options.resolver);
    let vpc = options.admission().await.vpc;
    let answers = names.iter().map(|name| async {
        let (found, error) = resolver.lookup(name, None).await;
        let answer = match error {
            Some(error) => Err(error.into()),
            None => admitted(found, |address| refuse_as_client(address, &vpc)),
        };
        (name.clone(), answer)
    });
    let answers = join_all(answers).await.into_iter().collect();
    (answers, resolver.shortest_ttl())
}

fn admitted(
    found: Vec<IpAddr>,
    refuse: impl Fn(IpAddr) -> Option<String>,
) -> Result<ClientAddresses, ClientNameError> {
    if found.len() > MAX_CLIENT_ADDRESSES {
        return Err(ClientNameError::TooMany { found: found.len() });
    }
    let mut answer = ClientAddresses::default();
    for address in found {
        match refuse(address) {
            None => answer.addresses.push(address),
            Some(why) => answer.refused.push(why),
        }
    }
    match answer.refused.as_slice() {
        [why, ..] if answer.addresses.is_empty() => Err(ClientNameError::Refused(why.clone())),
        _ => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(addresses: &[&str]) -> Result<ClientAddresses, ClientNameError> {
        let vpc = ["54.0.0.0/8".parse().unwrap()];
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        admitted(addresses, |address| refuse_as_client(address, &vpc))
    }

    #[test]
    fn only_addresses_of_the_internet_are_clients() {
        let answer = of(&["198.51.100.27", "10.0.0.9", "2001:db8::7"]).unwrap();
        assert_eq!(
            answer.addresses,
            ["198.51.100.27", "2001:db8::7"].map(|text| text.parse::<IpAddr>().unwrap())
        );
        assert_eq!(answer.refused, ["10.0.0.9 is private, and no client's on the internet"]);
        for refused in [
            "10.0.0.9",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "0.0.0.0",
            "fd00::1",
            "fe80::1",
            "::1",
            "54.1.2.3",
        ] {
            assert!(matches!(of(&[refused]), Err(ClientNameError::Refused(_))), "{refused}");
        }
    }

    #[test]
    fn a_service_with_many_addresses_is_no_client() {
        let many: Vec<String> = (1..=17).map(|last| format!("198.51.100.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(of(&many[..16]).is_ok());
        assert_eq!(of(&many), Err(ClientNameError::TooMany { found: 17 }));
    }
}
