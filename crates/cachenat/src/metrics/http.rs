//! As much of HTTP/1.1 as a scrape needs: `GET /metrics`, one answer, the end (RFC 9112).

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, TcpListener as Bound};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// How long a client may take to ask, and then to take the answer; Prometheus itself waits for 10 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many may be slow to ask at once, and as many to take their answer. One more, and the one that has been at it longest
/// gives way: who asks at once is never that one.
const AT_ONCE: usize = 8;

/// The longest head of a request; Prometheus' has about 300 bytes.
const LONGEST_HEAD: usize = 8 * 1024;

/// How long to wait when the process has no file descriptor left for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The names by which clients may call this server in `Host`, besides its literal addresses and `localhost`.
///
/// A page in somebody's browser can have its own name lead here (DNS rebinding), but not have the browser hide that name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Vec<String>);

impl Names {
    pub(crate) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether a request for this `Host` (RFC 9110 section 7.2) is answered; HTTP/1.0 has none.
    fn have(&self, host: Option<&str>) -> bool {
        let Some(host) = host else { return true };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        let name = name.to_ascii_lowercase();
        literal.parse::<IpAddr>().is_ok() || name == "localhost" || self.0.contains(&name)
    }
}

/// Answers on this socket from a thread of its own, as long as the process lives. What is asked for is made there, so
/// that no scrape, however slow, holds up anybody else.
///
/// # Errors
///
/// If the socket or the thread can't be had.
pub(crate) fn serve(
    bound: Bound,
    names: Names,
    text: impl Fn() -> String + Send + Sync + 'static,
) -> anyhow::Result<()> {
    bound.set_nonblocking(true).context("metrics")?;
    let runtime = Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    let work = move || {
        runtime.block_on(async move {
            if let Ok(listener) = TcpListener::from_std(bound) {
                accept(&listener, &names, text).await;
            }
        });
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(work).context("metrics")?;
    Ok(())
}

/// Tasks that clients can be slow at.
#[derive(Default)]
struct Slow(VecDeque<AbortHandle>);

impl Slow {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.retain(|task| !task.is_finished());
        if self.0.len() >= AT_ONCE
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(tokio::spawn(task).abort_handle());
    }
}

async fn accept(listener: &TcpListener, names: &Names, text: impl Fn() -> String) {
    let (asked, mut questions) = mpsc::channel(AT_ONCE);
    let (mut asking, mut taking) = (Slow::default(), Slow::default());
    loop {
        // Whoever is too slow, or goes away, has had its chance.
        tokio::select! {
            Some((head, stream)) = questions.recv() => {
                let response = respond(head, names, &text);
                taking.spawn(async move { drop(tell(stream, response).await) });
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let asked = asked.clone();
                    asking.spawn(async move {
                        if let Ok(question) = listen(stream).await {
                            drop(asked.send(question).await);
                        }
                    });
                }
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
}

/// Reads a request, and hands the connection on.
async fn listen<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Option<Vec<u8>>, S)> {
    let head = timeout(PATIENCE, read_head(&mut stream)).await??;
    Ok((head, stream))
}

async fn tell(mut stream: impl AsyncWrite + Unpin, response: String) -> io::Result<()> {
    timeout(PATIENCE, stream.write_all(response.as_bytes())).await??;
    stream.shutdown().await
}

/// The request up to its empty line; `None` if that does not come.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let room = LONGEST_HEAD - head.len();
        if room == 0 || (&mut *stream).take(room as u64).read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

fn respond(head: Option<Vec<u8>>, names: &Names, text: impl Fn() -> String) -> String {
    let head = head.and_then(|head| String::from_utf8(head).ok()).unwrap_or_default();
    let mut lines = head.lines();
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let &[method, target, version] = words.as_slice() else { return refusal("400 Bad Request") };
    let hosts: Vec<&str> = lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, host)| host.trim())
        .collect();
    if !version.starts_with("HTTP/1.") || hosts.len() > 1 {
        return refusal("400 Bad Request");
    }
    if !names.have(hosts.first().copied()) {
        let body = "this name is not answered: use the address, or start watch with --metrics-host NAME\n";
        return response("421 Misdirected Request", "", body);
    }
    match (method, target.split('?').next()) {
        ("GET", Some("/metrics")) => response("200 OK", "version=0.0.4; ", &text()),
        ("GET", _) => refusal("404 Not Found"),
        _ => response("405 Method Not Allowed\r\nAllow: GET", "", "only GET /metrics\n"),
    }
}

fn refusal(status: &str) -> String {
    response(status, "", "the metrics are at /metrics\n")
}

fn response(status: &str, version: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; {version}charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answered(request: &[u8]) -> String {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
            theirs.write_all(request).await.unwrap();
            theirs.shutdown().await.unwrap();
            let (head, ours) = listen(&mut ours).await.unwrap();
            let names = Names::new(&["Gateway.internal".to_owned()]);
            tell(ours, respond(head, &names, || "up 1\n".to_owned())).await.unwrap();
            let mut answer = String::new();
            theirs.read_to_string(&mut answer).await.unwrap();
            answer
        })
    }

    #[test]
    fn metrics_are_got_and_nothing_else_is() {
        let got = answered(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9379\r\n\r\n");
        assert!(got.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4;"), "{got}");
        assert!(got.ends_with("\r\nContent-Length: 5\r\nConnection: close\r\n\r\nup 1\n"), "{got}");
        assert!(answered(b"GET /metrics?a=b HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
            (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"GET /metrics HTTP/2\r\n\r\n", "400"),
            (b"GET /metrics\r\n\r\n", "400"),
            (b"\x16\x03\x01\xff\xfe\r\n\r\n", "400"),
            (b"GET /metrics HTTP/1.1\r\n", "400"),
            (b"", "400"),
        ] {
            let got = answered(request);
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {got}");
        }
    }

    #[test]
    fn only_its_own_names_are_answered() {
        let status = |host: &str| {
            answered(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())[9..12].to_owned()
        };
        for own in ["10.0.0.55", "[::1]:9379", "localhost:9379", "gateway.INTERNAL:9379"] {
            assert_eq!(status(own), "200", "{own}");
        }
        for other in ["evil.example", "evil.example:9379", "127.0.0.1.evil.example", ""] {
            assert_eq!(status(other), "421", "{other}");
        }
        assert_eq!(status("127.0.0.1\r\nhost: evil.example"), "400");
    }

    #[test]
    fn a_head_without_end_is_read_so_far_and_no_further() {
        let got = answered(&b"GET /metrics HTTP/1.1\r\n".repeat(1_000));
        assert!(got.starts_with("HTTP/1.1 400 "), "{got}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(head: Option<Vec<u8>>) {
            prop_assert!(respond(head, &Names::default(), String::new).starts_with("HTTP/1.1 "));
        }
    }
}
