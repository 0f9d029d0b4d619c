//! A client that sends requests continuously, and reconnects when it gets no answer.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use cachenat_tests::lab::namespace::Namespace;

/// Between an answer and the next question.
const PAUSE: Duration = Duration::from_millis(5);

/// It ends when this value does, at its next answer.
pub(super) struct Client {
    /// The time of each answer.
    answers: Receiver<Instant>,
}

impl Client {
    /// Starts a client in `from` that reconnects after this timeout for a connection or an answer.
    pub(super) fn start(from: &Namespace, to: SocketAddrV4, patience: Duration) -> Self {
        let (sender, answers) = mpsc::channel();
        from.enter(|| {
            thread::spawn(move || {
                let mut connection = None;
                loop {
                    match ask(&mut connection, to, patience) {
                        Ok(()) if sender.send(Instant::now()).is_err() => return,
                        Ok(()) => {}
                        Err(_) => connection = None,
                    }
                    thread::sleep(PAUSE);
                }
            });
        });
        Self { answers }
    }

    /// Its first answer after that moment; all earlier ones are forgotten.
    pub(super) fn answered_after(&mut self, moment: Instant, patience: Duration) -> Option<Instant> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.answers.recv_timeout(left).ok()?;
            if answer > moment {
                return Some(answer);
            }
        }
    }
}

fn ask(connection: &mut Option<TcpStream>, to: SocketAddrV4, patience: Duration) -> io::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&SocketAddr::V4(to), patience)?;
            stream.set_read_timeout(Some(patience))?;
            connection.insert(stream)
        }
    };
    stream.write_all(b"PING\r\n")?;
    stream.read_exact(&mut [0; 7])
}
