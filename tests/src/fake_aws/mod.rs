//! A fake AWS on loopback: the ElastiCache Query API, and IMDSv2 under `/latest/`.
//!
//! It answers in the shapes of botocore's service model elasticache/2015-02-02; `tests/boto3_reads.py` reads the same
//! answers with boto3 and compares.

mod answer;
mod http;
mod imds;
mod scenario;
pub mod shapes;
mod xml;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

pub use scenario::{Fault, How, Scenario};

/// A running fake. It stops when it is dropped.
pub struct FakeAws {
    address: SocketAddr,
    listener: TcpListener,
    state: Arc<Mutex<State>>,
}

/// One call that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `DescribeCacheClusters`, or `IMDS /latest/...`.
    pub action: String,
    /// The requested page, from 1.
    pub page: usize,
    /// The region that the signature names.
    pub region: String,
}

#[derive(Default)]
struct State {
    scenario: Scenario,
    calls: Vec<Call>,
    /// The number of concurrent calls, and its maximum.
    under_way: usize,
    most_at_once: usize,
}

impl FakeAws {
    /// Listens on the address, in the network namespace of the calling thread; port 0 picks one.
    ///
    /// # Panics
    ///
    /// If it cannot bind the address.
    pub fn start(address: SocketAddr) -> Self {
        let listener =
            TcpListener::bind(address).unwrap_or_else(|error| panic!("listen on {address}: {error}"));
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State::default()));
        let (accepting, shared) = (listener.try_clone().expect("a listener can be cloned"), state.clone());
        thread::spawn(move || {
            // Shutting the listener down ends this loop.
            while let Ok((connection, _)) = accepting.accept() {
                let state = shared.clone();
                thread::spawn(move || serve(connection, &state));
            }
        });
        Self { address, listener, state }
    }

    /// `http://127.0.0.1:PORT`: for `AWS_ENDPOINT_URL` and `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the scenario from now on, and clears the log of calls.
    pub fn set(&self, scenario: Scenario) {
        *lock(&self.state) = State { scenario, ..State::default() };
    }

    /// The current scenario.
    pub fn scenario(&self) -> Scenario {
        lock(&self.state).scenario.clone()
    }

    /// Changes the current scenario.
    pub fn change(&self, change: impl FnOnce(&mut Scenario)) {
        change(&mut lock(&self.state).scenario);
    }

    /// The calls that arrived, in their order.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state).calls.clone()
    }

    /// The maximum number of concurrent calls.
    pub fn most_at_once(&self) -> usize {
        lock(&self.state).most_at_once
    }

    /// How many calls of an action arrived.
    pub fn count(&self, action: &str) -> usize {
        lock(&self.state).calls.iter().filter(|call| call.action == action).count()
    }
}

impl Drop for FakeAws {
    fn drop(&mut self) {
        // Linux wakes a blocked accept when its listener is shut down, from whatever namespace.
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

/// Ignores poisoning: the panic is reported elsewhere, and the state is still consistent.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Answers one connection's requests until it ends.
fn serve(mut connection: TcpStream, state: &Mutex<State>) {
    while let Ok(Some(request)) = http::read_request(&mut connection) {
        let response = match request.path.starts_with("/latest/") {
            true => imds::respond(&request, state),
            false => answer::respond(&request, state),
        };
        begin(state);
        let goes_on = carry_out(&mut connection, &response);
        end(state);
        if !goes_on {
            return;
        }
    }
}

fn begin(state: &Mutex<State>) {
    let mut state = lock(state);
    state.under_way += 1;
    state.most_at_once = state.most_at_once.max(state.under_way);
}

fn end(state: &Mutex<State>) {
    let mut state = lock(state);
    state.under_way = state.under_way.saturating_sub(1);
}

/// Sends the answer, or fails as the scenario demands.
struct Response {
    after: Duration,
    message: http::Message,
    how: Option<How>,
}

/// Whether the connection can be used again.
fn carry_out(connection: &mut TcpStream, response: &Response) -> bool {
    thread::sleep(response.after);
    match &response.how {
        Some(How::Hang) => http::wait_for_end(connection),
        Some(How::Reset) => http::reset(connection),
        Some(How::Flood { begin, piece }) => http::flood(connection, begin, piece),
        Some(How::Drip { piece }) => http::drip(connection, piece),
        Some(How::HalfBody) => http::write_half(connection, &response.message),
        _ => return http::write(connection, &response.message).is_ok(),
    }
    false
}
