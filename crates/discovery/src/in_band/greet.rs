//! Greeting a server to learn what answers at an address; for whoever wants to know whether a way is open.

use std::{io, net::SocketAddr, num::NonZeroUsize, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::rustls::{self, CertificateError};

use super::{
    InBandError,
    connection::{self, Stream},
    redis::{field, role},
    resp::{self, Value},
};
use crate::{HostPort, Role, TlsTrust, text::plain};

/// Whom to greet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Where it is.
    pub address: HostPort,
    /// Present: speak TLS.
    pub tls: Option<TlsTrust>,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Which protocol it speaks.
    pub speaks: ServerProtocol,
    /// Its version.
    pub version: Option<String>,
    /// What it is in its shard now.
    pub role: Option<Role>,
    /// What tells it from every other server, and from its own former self (`run_id` of INFO).
    pub run_id: Option<String>,
    /// The address at which it took the connection: its own, behind every NAT (`laddr` of CLIENT INFO, Redis 6.2).
    pub at: Option<SocketAddr>,
    /// Why it does not tell more: it wants a password, or is loading.
    pub reserve: Option<String>,
}

/// The protocol of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerProtocol {
    /// Redis or Valkey.
    #[default]
    Redis,
    /// Memcached.
    Memcached,
    /// Neither; its words.
    Other(String),
}

/// Why nobody answered a greeting.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// The host's name leads nowhere.
    #[error("the name has no address: {0}")]
    NoAddress(#[source] io::Error),
    /// A reset in answer to the first packet.
    #[error("refused")]
    Refused,
    /// No answer to the first packet.
    #[error("no answer")]
    Silent,
    /// This host has no route there, or a router on the way says that there is none.
    #[error("{0}")]
    Unreachable(#[source] io::Error),
    /// This host let no packet out: it lacks descriptors or ports, or a rule of its own forbids it.
    #[error("not tried: {0}")]
    NotTried(#[source] io::Error),
    /// Connected, and then no word.
    #[error("connected, but it says nothing")]
    NoReply,
    /// Connected, and then closed.
    #[error("connected, but it closes the connection")]
    Closed,
    /// It answers TLS with something else.
    #[error("it does not speak TLS")]
    NotTls,
    /// The certificate is good, but another's.
    #[error("the certificate is not for {expected}, but for {}", list(presented))]
    WrongName {
        /// The name that was asked for.
        expected: String,
        /// The names that the certificate has.
        presented: Vec<String>,
    },
    /// The certificate is not to be believed.
    #[error("the certificate: {0}")]
    Certificate(String),
    /// The file of certificate authorities can't be read.
    #[error(transparent)]
    Trust(InBandError),
    /// What it says is no protocol.
    #[error("{0}")]
    Garbled(String),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { plain(&names.join(", ")) }
}

/// Greets all, so many at once, and waits at most `patience` for each step of each; the answers are in the order of `dials`.
///
/// A greeting takes up to two file descriptors: one to look its name up, then one to connect.
pub async fn greet_all(
    dials: &[Dial],
    patience: Duration,
    at_once: NonZeroUsize,
) -> Vec<Result<ServerInfo, GreetError>> {
    stream::iter(dials).map(|dial| greet(dial, patience)).buffered(at_once.get()).collect().await
}

async fn greet(dial: &Dial, patience: Duration) -> Result<ServerInfo, GreetError> {
    let stream = connect(&dial.address, patience).await?;
    let talk = async {
        let stream: Box<dyn Stream> = match &dial.tls {
            None => Box::new(stream),
            Some(trust) => {
                let encrypted = connection::encrypt(stream, &dial.address, trust).await;
                Box::new(encrypted.map_err(|error| of_handshake(error, dial))?)
            }
        };
        introduce(BufReader::new(stream)).await.map_err(of_talk)
    };
    timeout(patience, talk).await.unwrap_or(Err(GreetError::NoReply))
}

async fn connect(to: &HostPort, patience: Duration) -> Result<TcpStream, GreetError> {
    let addresses = lookup_host((to.host.as_str(), to.port.get())).await;
    // The resolver's own errors have no number of the system's.
    let addresses: Vec<SocketAddr> = addresses
        .map_err(|error| match error.raw_os_error() {
            None => GreetError::NoAddress(error),
            Some(_) => GreetError::NotTried(error),
        })?
        .collect();
    match timeout(patience, TcpStream::connect(addresses.as_slice())).await {
        Err(_) => Err(GreetError::Silent),
        Ok(connected) => connected.map_err(of_connect),
    }
}

/// What connect(2) says of the way; what else it says is of this host.
fn of_connect(error: io::Error) -> GreetError {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    match error.kind() {
        ConnectionRefused | ConnectionReset => GreetError::Refused,
        TimedOut => GreetError::Silent,
        HostUnreachable | NetworkUnreachable => GreetError::Unreachable(error),
        _ => GreetError::NotTried(error),
    }
}

fn of_handshake(error: InBandError, dial: &Dial) -> GreetError {
    let InBandError::Connection { source, .. } = error else { return GreetError::Trust(error) };
    let expected = || {
        let named = dial.tls.as_ref().and_then(|trust| trust.server_name.clone());
        named.unwrap_or_else(|| dial.address.host.clone())
    };
    match source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            ..
        })) => GreetError::WrongName { expected: expected(), presented: presented.clone() },
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForName)) => {
            GreetError::WrongName { expected: expected(), presented: Vec::new() }
        }
        Some(rustls::Error::InvalidCertificate(error)) => GreetError::Certificate(plain(&error.to_string())),
        Some(rustls::Error::InvalidMessage(_)) => GreetError::NotTls,
        _ => of_talk(source),
    }
}

fn of_talk(error: io::Error) -> GreetError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => GreetError::Closed,
        _ => GreetError::Garbled(plain(&error.to_string())),
    }
}

/// PING without a frame is a line that Redis answers (inline commands) and Memcached refuses with `ERROR`.
async fn introduce(mut stream: BufReader<Box<dyn Stream>>) -> io::Result<ServerInfo> {
    let answer = say(&mut stream, b"PING\r\n").await?;
    match answer.as_str() {
        "+PONG" => of_redis(&mut stream).await,
        "ERROR" => {
            let answer = say(&mut stream, b"version\r\n").await?;
            let version = answer.strip_prefix("VERSION ").map(plain);
            Ok(ServerInfo { speaks: ServerProtocol::Memcached, version, ..ServerInfo::default() })
        }
        _ => match answer.strip_prefix('-') {
            Some(refusal) => Ok(ServerInfo { reserve: Some(plain(refusal)), ..ServerInfo::default() }),
            None => Ok(ServerInfo { speaks: ServerProtocol::Other(plain(&answer)), ..ServerInfo::default() }),
        },
    }
}

async fn say(stream: &mut BufReader<Box<dyn Stream>>, line: &[u8]) -> io::Result<String> {
    stream.write_all(line).await?;
    stream.flush().await?;
    resp::read_line(stream).await
}

/// What INFO and CLIENT INFO tell; an old server, or one with an ACL, tells less.
async fn of_redis(stream: &mut BufReader<Box<dyn Stream>>) -> io::Result<ServerInfo> {
    let mut told = Vec::new();
    for words in [&["INFO", "server"][..], &["INFO", "replication"], &["CLIENT", "INFO"]] {
        stream.write_all(&resp::command(words)).await?;
        stream.flush().await?;
        told.push(resp::read(stream).await?);
    }
    let text = |at: usize| told.get(at).and_then(Value::text).unwrap_or_default();
    let (server, replication, client) = (text(0), text(1), text(2));
    Ok(ServerInfo {
        speaks: ServerProtocol::Redis,
        version: field(server, "valkey_version").or(field(server, "redis_version")).map(plain),
        role: field(replication, "role").and_then(role),
        run_id: field(server, "run_id").map(plain),
        at: client.split_whitespace().find_map(|word| word.strip_prefix("laddr=")?.parse().ok()),
        reserve: told.iter().find_map(|answer| match answer {
            Value::Error(refusal) if refusal.starts_with("NOAUTH") => Some(plain(refusal)),
            _ => None,
        }),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Greets a server that answers each request it gets with the next of `answers`, and then closes.
    fn greeted(answers: &[&str], tls: bool) -> Result<ServerInfo, GreetError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string().parse().unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            };
            let dials = [Dial { address, tls: tls.then(TlsTrust::default) }];
            let (mut greetings, ()) = futures_util::future::join(
                greet_all(&dials, Duration::from_millis(500), NonZeroUsize::MIN),
                serve,
            )
            .await;
            greetings.remove(0)
        })
    }

    #[test]
    fn a_redis_tells_its_role_and_its_own_address() {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let server = bulk("# Server\r\nredis_version:7.0.15\r\nrun_id:abcdef\r\n");
        let replication = bulk("# Replication\r\nrole:slave\r\n");
        let client = bulk("id=3 addr=10.0.0.55:40000 laddr=10.0.1.231:6379 fd=8");
        let greeting = greeted(&["+PONG\r\n", &server, &replication, &client], false);
        let expected = ServerInfo {
            version: Some("7.0.15".into()),
            role: Some(Role::Replica),
            run_id: Some("abcdef".into()),
            at: Some("10.0.1.231:6379".parse().unwrap()),
            ..ServerInfo::default()
        };
        assert_eq!(greeting.unwrap(), expected);
    }

    #[test]
    fn memcached_and_strangers_are_told_apart() {
        let greeting = greeted(&["ERROR\r\n", "VERSION 1.6.18\r\n"], false).unwrap();
        assert_eq!(
            (greeting.speaks, greeting.version.as_deref()),
            (ServerProtocol::Memcached, Some("1.6.18"))
        );
        let greeting = greeted(&["SSH-2.0-OpenSSH\u{1b}\r\n"], false).unwrap();
        assert_eq!(greeting.speaks, ServerProtocol::Other("SSH-2.0-OpenSSH?".into()));
    }

    #[test]
    fn a_server_that_wants_a_password_is_reachable_all_the_same() {
        let greeting = greeted(&["-NOAUTH Authentication required.\r\n"], false).unwrap();
        assert_eq!(greeting.reserve.as_deref(), Some("NOAUTH Authentication required."));
    }

    #[test]
    fn what_this_host_lacks_is_not_said_of_the_way() {
        let of = |errno| of_connect(io::Error::from_raw_os_error(errno));
        // EMFILE, ENFILE, EPERM, EADDRNOTAVAIL (errno(3), Linux).
        for errno in [24, 23, 1, 99] {
            assert!(matches!(of(errno), GreetError::NotTried(_)), "{errno}");
        }
        // EHOSTUNREACH, ENETUNREACH.
        assert!([113, 101].map(of).iter().all(|error| matches!(error, GreetError::Unreachable(_))));
    }

    #[test]
    fn what_goes_wrong_has_a_name() {
        assert!(matches!(greeted(&[], false), Err(GreetError::Closed)));
        assert!(matches!(greeted(&["-ERR\r\n"], true), Err(GreetError::NotTls)));
        assert!(matches!(greeted(&["half a line"], false), Err(GreetError::Garbled(_))));
    }
}
