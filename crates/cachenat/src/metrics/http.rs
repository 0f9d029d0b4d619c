//! As much of HTTP/1.1 as a scrape needs: `GET /metrics`, one answer, the end (RFC 9112).

use std::io;
use std::net::TcpListener as Bound;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How long a client may take to ask, and then to take the answer; Prometheus itself waits for 10 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many may be slow at once; more wait their turn.
const AT_ONCE: usize = 8;

/// The longest head of a request; Prometheus' has about 300 bytes.
const LONGEST_HEAD: usize = 8 * 1024;

/// How long to wait when the process has no file descriptor left for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers on this socket from a thread of its own, as long as the process lives. What is asked for is made there, so
/// that no scrape, however slow, holds up anybody else.
///
/// # Errors
///
/// If the socket or the thread can't be had.
pub(crate) fn serve(bound: Bound, text: impl Fn() -> String + Send + Sync + 'static) -> anyhow::Result<()> {
    bound.set_nonblocking(true).context("metrics")?;
    let runtime = Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    let work = move || {
        runtime.block_on(async move {
            if let Ok(listener) = TcpListener::from_std(bound) {
                accept(&listener, Arc::new(text)).await;
            }
        });
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(work).context("metrics")?;
    Ok(())
}

async fn accept(listener: &TcpListener, text: Arc<impl Fn() -> String + Send + Sync + 'static>) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let text = Arc::clone(&text);
        tokio::spawn(async move {
            // Whoever is too slow, or goes away, has had its chance.
            let _ = answer(&mut stream, &*text).await;
            drop(slot);
        });
    }
}

/// Reads one request and answers it. The answer takes as long as it takes: that is not the client's doing.
async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    text: impl Fn() -> String,
) -> io::Result<()> {
    let head = timeout(PATIENCE, read_head(stream)).await??;
    let response = respond(head.as_deref(), text);
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

fn respond(head: Option<&[u8]>, text: impl Fn() -> String) -> String {
    let line = head.and_then(|head| std::str::from_utf8(head).ok()?.lines().next());
    let words: Vec<&str> = line.unwrap_or_default().split(' ').collect();
    let &[method, target, version] = words.as_slice() else { return refusal("400 Bad Request") };
    if !version.starts_with("HTTP/1.") {
        return refusal("400 Bad Request");
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
            answer(&mut ours, || "up 1\n".to_owned()).await.unwrap();
            let mut answer = String::new();
            theirs.read_to_string(&mut answer).await.unwrap();
            answer
        })
    }

    #[test]
    fn metrics_are_got_and_nothing_else_is() {
        let got = answered(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
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
    fn a_head_without_end_is_read_so_far_and_no_further() {
        let got = answered(&b"GET /metrics HTTP/1.1\r\n".repeat(1_000));
        assert!(got.starts_with("HTTP/1.1 400 "), "{got}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(head: Option<Vec<u8>>) {
            prop_assert!(respond(head.as_deref(), String::new).starts_with("HTTP/1.1 "));
        }
    }
}
