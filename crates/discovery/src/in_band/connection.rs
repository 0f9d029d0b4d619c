//! A connection to a cache, with TLS where it is wanted.

use std::{io, net::IpAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::{InBandError, read_plain_file};
use crate::{Admission, HostPort, Options, Refusal, TlsTrust, admit, resolve::Resolver};

/// Bytes to and from a cache.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Connects to the first of the host's admitted addresses that answers; no other one hears a word, let alone a password.
pub(super) async fn open(
    seed: &HostPort,
    tls: Option<&TlsTrust>,
    options: &Options,
) -> Result<Box<dyn Stream + Send>, InBandError> {
    let failed = |source| InBandError::Connection { seed: seed.clone(), source };
    let (addresses, error) = Resolver::new(&options.resolver).lookup(&seed.host, None).await;
    if let (true, Some(error)) = (addresses.is_empty(), error) {
        return Err(error.into());
    }
    let policy = options.admission().await;
    let mut last = failed(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        if let Err(refusal) = admit_seed(address, seed, &policy) {
            last = InBandError::SeedRefused { seed: seed.clone(), refusal };
            continue;
        }
        match TcpStream::connect((address, seed.port.get())).await {
            Ok(stream) => {
                return match tls {
                    None => Ok(Box::new(stream)),
                    Some(trust) => Ok(Box::new(encrypt(stream, seed, trust).await?)),
                };
            }
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}

/// A seed has to be where a target may be. Only the local end of a tunnel, which the configuration spells out and no name
/// server can put in another's place, is more.
fn admit_seed(address: IpAddr, seed: &HostPort, policy: &Admission) -> Result<(), Refusal> {
    match admit(address, policy) {
        Err(Refusal::Loopback(_)) if seed.host.parse::<IpAddr>().is_ok() => Ok(()),
        verdict => verdict,
    }
}

/// Speaks TLS on a connection, and believes only who proves to bear the seed's name.
pub(super) async fn encrypt(
    stream: TcpStream,
    seed: &HostPort,
    trust: &TlsTrust,
) -> Result<impl Stream + use<>, InBandError> {
    let failed = |source| InBandError::Connection { seed: seed.clone(), source };
    let name = trust.server_name.as_ref().unwrap_or(&seed.host).clone();
    let name = ServerName::try_from(name).map_err(|error| failed(io::Error::other(error)))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(io::Error::other(error)))?
        .with_root_certificates(roots(trust)?)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(failed)
}

fn roots(trust: &TlsTrust) -> Result<RootCertStore, InBandError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &trust.ca_file else {
        // A broken certificate among the system's does not spoil the others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |reason: String| InBandError::Certificates { path: path.clone(), reason };
    let pem = read_plain_file(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("there are none".to_owned())) } else { Ok(roots) }
}
