//! The part of HTTP/1.1 that the SDKs use, and ways to break it.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

/// A request, its form (if it has one) decoded.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) form: BTreeMap<String, String>,
}

/// A response.
pub(super) struct Message {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// Reads one request; none at the end of the connection.
pub(super) fn read_request(connection: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if connection.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = |line: &str| {
        Some((line.split_once(':')?.0.to_lowercase(), line.split_once(':')?.1.trim().to_owned()))
    };
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();

    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    let form = decode_form(&String::from_utf8_lossy(&body));
    Ok(Some(Request { method, path, headers, form }))
}

fn decode_form(body: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (decode(name), decode(value)));
    body.split('&').filter_map(pair).collect()
}

/// `application/x-www-form-urlencoded`.
fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                u8::from_str_radix(&String::from_utf8_lossy(&hex), 16).unwrap_or(b'?')
            }
            plain => plain,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Sends the response.
pub(super) fn write(connection: &mut TcpStream, message: &Message) -> io::Result<()> {
    connection.write_all(encode(message).as_bytes())
}

/// Sends half of the body that the header promises, and ends.
pub(super) fn write_half(connection: &mut TcpStream, message: &Message) {
    let whole = encode(message);
    let _ = connection.write_all(&whole.as_bytes()[..whole.len() - message.body.len() / 2]);
    let _ = connection.shutdown(Shutdown::Both);
}

/// Sends an endless answer in chunks of about 64 KiB.
pub(super) fn flood(connection: &mut TcpStream, begin: &str, piece: &str) {
    let pieces = chunk(&piece.repeat((64 << 10) / piece.len().max(1) + 1));
    let mut sent = connection.write_all((CHUNKED.to_owned() + &chunk(begin)).as_bytes());
    while sent.is_ok() {
        sent = connection.write_all(pieces.as_bytes());
    }
}

/// Sends an endless answer so slowly that the reader never times out between chunks.
pub(super) fn drip(connection: &mut TcpStream, piece: &str) {
    let mut sent = connection.write_all(CHUNKED.as_bytes());
    while sent.is_ok() {
        sent = connection.write_all(chunk(piece).as_bytes());
        thread::sleep(Duration::from_millis(20));
    }
}

const CHUNKED: &str = "HTTP/1.1 200 x\r\nContent-Type: text/xml\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Waits until the other side gives up.
pub(super) fn wait_for_end(connection: &mut TcpStream) {
    while matches!(connection.read(&mut [0; 64]), Ok(1..)) {}
}

/// Ends the connection with a RST.
pub(super) fn reset(connection: &TcpStream) {
    // Closing a socket that lingers for zero seconds resets it (socket(7), SO_LINGER).
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(connection, sockopt::Linger, &linger).expect("a TCP socket has SO_LINGER");
}

fn encode(message: &Message) -> String {
    let headers: String =
        message.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = message.body.len();
    format!("HTTP/1.1 {} x\r\n{headers}Content-Length: {length}\r\n\r\n{}", message.status, message.body)
}
