//! Whom to probe: an `endpoints --format json` file, or `HOST:PORTS`.

use std::num::NonZeroU16;

use clients::{ClientEndpoint, Document};
use discovery::HostPort;

/// A port to try, and what is known of the node that is to be behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is dialled.
    pub address: HostPort,
    /// The node; `None` if only `HOST:PORTS` was given.
    pub node: Option<ClientEndpoint>,
}

/// Why there is nothing to probe.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The argument is no file that there is, and no ports.
    #[error(
        "{0:?} is no HOST:PORTS, such as 203.0.113.73:6379-6381, and no file of 'cachenat endpoints --format json'"
    )]
    Neither(String),
    /// The file is of something else.
    #[error("this is no output of 'cachenat endpoints --format json'")]
    NotEndpoints(#[source] serde_json::Error),
    /// The file is of a later program.
    #[error("version {0} of the endpoints is not known: this program reads version 1")]
    Version(u32),
    /// The file names nothing.
    #[error("there is no endpoint in it")]
    Empty,
    /// An endpoint of the file can't be dialled.
    #[error("{id}: {host}:{port} is no address")]
    Address {
        /// The endpoint.
        id: String,
        /// Its `public_host`.
        host: String,
        /// Its `public_port`.
        port: u16,
    },
}

/// The most ports that one `HOST:PORTS` may name; a mistyped range is no reason to scan a host.
const MAX_PORTS: usize = 1024;

/// Reads the text of a file.
///
/// # Errors
///
/// [`TargetError`]
pub fn parse(text: &str) -> Result<Vec<Target>, TargetError> {
    let Document { version, endpoints } = serde_json::from_str(text).map_err(TargetError::NotEndpoints)?;
    if version != 1 {
        return Err(TargetError::Version(version));
    }
    if endpoints.is_empty() {
        return Err(TargetError::Empty);
    }
    endpoints.into_iter().map(of_endpoint).collect()
}

fn of_endpoint(endpoint: ClientEndpoint) -> Result<Target, TargetError> {
    let ClientEndpoint { id, public_host, public_port, .. } = &endpoint;
    let address = clients::joined(public_host, *public_port).parse();
    let wrong = |_| TargetError::Address { id: id.clone(), host: public_host.clone(), port: *public_port };
    Ok(Target { address: address.map_err(wrong)?, node: Some(endpoint) })
}

impl Target {
    /// `HOST:PORT`, `HOST:FIRST-LAST`, `HOST:PORT,PORT`.
    ///
    /// # Errors
    ///
    /// [`TargetError::Neither`]
    pub fn of_ports(text: &str) -> Result<Vec<Self>, TargetError> {
        let neither = || TargetError::Neither(text.to_owned());
        let (host, ports) = text.rsplit_once(':').ok_or_else(neither)?;
        let mut targets = Vec::new();
        for range in ports.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let port = |text: &str| text.parse::<NonZeroU16>().map(NonZeroU16::get).map_err(|_| neither());
            for port in port(first)?..=port(last)? {
                let address = format!("{host}:{port}").parse().map_err(|_| neither())?;
                targets.push(Self { address, node: None });
            }
        }
        if targets.is_empty() || targets.len() > MAX_PORTS { Err(neither()) } else { Ok(targets) }
    }

    /// The node's id, or `-`.
    pub fn id(&self) -> &str {
        self.node.as_ref().map_or("-", |node| &node.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        Target::of_ports(text).unwrap().iter().map(|target| target.address.to_string()).collect()
    }

    #[test]
    fn ports_are_single_ones_ranges_and_lists() {
        assert_eq!(addresses("203.0.113.73:6379"), ["203.0.113.73:6379"]);
        assert_eq!(
            addresses("nat.example:6379-6380,7000"),
            ["nat.example:6379", "nat.example:6380", "nat.example:7000"]
        );
        assert_eq!(addresses("[2001:db8::73]:1"), ["[2001:db8::73]:1"]);
    }

    #[test]
    fn what_is_neither_a_file_nor_ports_is_refused() {
        for text in
            ["", "endpoints.json", "h:", "h:0", "h:2-1", "h:1-65535", "h:a", ":1", "2001:db8::1:1", "h:1-"]
        {
            assert!(Target::of_ports(text).is_err(), "{text:?}");
        }
        for text in ["{}", r#"{"version": 2, "endpoints": []}"#, r#"{"version": 1, "endpoints": []}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
