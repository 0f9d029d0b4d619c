//! A name server on loopback that answers, fails or is silent, name by name.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};

/// The answer for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A and AAAA records; without any, the name exists but has no records.
    Addresses(Vec<IpAddr>),
    /// An alias. The whole chain is in one answer, as a recursive server gives it.
    Cname(String),
    /// The answer is too long for UDP and comes over TCP.
    Truncated(Vec<IpAddr>),
    /// An error: SERVFAIL, REFUSED.
    Code(ResponseCode),
    /// No answer.
    Silence,
}

type Names = Arc<Mutex<BTreeMap<String, Answer>>>;

/// A running name server. Unknown names are NXDOMAIN. It stops when it is dropped.
pub struct FakeDns {
    address: SocketAddr,
    names: Names,
    queries: Arc<Mutex<Vec<(String, RecordType)>>>,
    listener: TcpListener,
    stop: Arc<AtomicBool>,
}

/// The time to live of every record, in seconds. ElastiCache's names have 5 to 60.
const TTL: u32 = 5;

impl FakeDns {
    /// Listens on UDP and TCP, in the network namespace of the calling thread; port 0 picks one.
    ///
    /// # Panics
    ///
    /// If the address can't be had.
    pub fn start(address: SocketAddr) -> Self {
        let (udp, listener) = bind(address);
        let address = listener.local_addr().expect("it is bound");
        let dns = Self {
            address,
            names: Names::default(),
            queries: Arc::default(),
            listener: listener.try_clone().expect("a listener can be cloned"),
            stop: Arc::default(),
        };
        let zone = dns.zone();
        let stop = dns.stop.clone();
        thread::spawn(move || serve_udp(&udp, &zone, &stop));
        let zone = dns.zone();
        thread::spawn(move || {
            while let Ok((connection, _)) = listener.accept() {
                let zone = zone.clone();
                thread::spawn(move || serve_tcp(connection, &zone));
            }
        });
        dns
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answer for a name.
    pub fn set(&self, name: &str, answer: Answer) {
        lock(&self.names).insert(name.to_lowercase(), answer);
    }

    /// Sets the only address of a name.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn point(&self, name: &str, address: &str) {
        self.set(name, Answer::Addresses(vec![address.parse().expect("an address")]));
    }

    /// The queries, in order.
    pub fn queries(&self) -> Vec<(String, RecordType)> {
        lock(&self.queries).clone()
    }

    fn zone(&self) -> Zone {
        Zone { names: self.names.clone(), queries: self.queries.clone() }
    }
}

impl Drop for FakeDns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

/// One port for both. A port that is free for one may be taken for the other, so several are tried.
fn bind(address: SocketAddr) -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp =
            TcpListener::bind(address).unwrap_or_else(|error| panic!("listen on {address}/tcp: {error}"));
        match UdpSocket::bind(tcp.local_addr().expect("it is bound")) {
            Ok(udp) => return (udp, tcp),
            Err(error) if address.port() != 0 => panic!("listen on {address}/udp: {error}"),
            Err(_) => {}
        }
    }
    panic!("no port of {} is free for both UDP and TCP", address.ip());
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Zone {
    names: Names,
    queries: Arc<Mutex<Vec<(String, RecordType)>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

fn serve_udp(socket: &UdpSocket, zone: &Zone, stop: &AtomicBool) {
    // A UDP socket cannot be shut down from another thread, so check for the end regularly.
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("100 ms is not zero");
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(response) = zone.respond(&buffer[..length], Transport::Udp) {
            let _ = socket.send_to(&response, client);
        }
    }
}

/// Messages with two bytes of length before each (RFC 1035, 4.2.2).
fn serve_tcp(mut connection: TcpStream, zone: &Zone) {
    let mut length = [0; 2];
    while connection.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if connection.read_exact(&mut query).is_err() {
            return;
        }
        let Some(response) = zone.respond(&query, Transport::Tcp) else { continue };
        let length = u16::try_from(response.len()).expect("tests answer briefly").to_be_bytes();
        let _ = connection.write_all(&[&length, response.as_slice()].concat());
    }
}

impl Zone {
    fn respond(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        let question = query.queries.first()?;
        let mut response = Message::response(query.metadata.id, query.metadata.op_code);
        response.metadata.recursion_desired = query.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.add_query(question.clone());
        lock(&self.queries).push((text(question.name()), question.query_type()));
        self.fill(&mut response, question, transport)?;
        response.to_vec().ok()
    }

    /// Adds the answer; `None` if the server must stay silent.
    fn fill(&self, response: &mut Message, question: &Query, transport: Transport) -> Option<()> {
        let mut name = question.name().clone();
        loop {
            let answer = lock(&self.names).get(&text(&name)).cloned();
            match answer {
                None => response.metadata.response_code = ResponseCode::NXDomain,
                Some(Answer::Silence) => return None,
                Some(Answer::Code(code)) => response.metadata.response_code = code,
                Some(Answer::Truncated(_)) if transport == Transport::Udp => {
                    response.metadata.truncation = true
                }
                Some(Answer::Addresses(addresses) | Answer::Truncated(addresses)) => {
                    let records =
                        addresses.iter().filter_map(|address| data(*address, question.query_type()));
                    response.add_answers(records.map(|data| Record::from_rdata(name.clone(), TTL, data)));
                }
                Some(Answer::Cname(target)) => {
                    let target = Name::from_ascii(format!("{target}.")).expect("tests name things well");
                    let alias = RData::CNAME(CNAME(target.clone()));
                    response.add_answer(Record::from_rdata(name, TTL, alias));
                    name = target;
                    continue;
                }
            }
            return Some(());
        }
    }
}

fn data(address: IpAddr, wanted: RecordType) -> Option<RData> {
    match (address, wanted) {
        (IpAddr::V4(v4), RecordType::A) => Some(RData::A(v4.into())),
        (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(v6.into())),
        _ => None,
    }
}

/// The name in lower case, without the dot at its end.
fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_lowercase()
}
