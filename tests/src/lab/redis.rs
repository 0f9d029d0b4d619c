//! A minimal Redis connection that a test can keep open.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};

use super::namespace::Namespace;

/// One TCP connection that speaks RESP2 (redis.io, "Redis serialization protocol specification").
#[derive(Debug)]
pub struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    /// Connects from inside `from`.
    ///
    /// # Errors
    ///
    /// As [`Namespace::connect`].
    pub fn connect(from: &Namespace, to: SocketAddrV4) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(from.connect(to)?) })
    }

    /// Sends one command and returns its reply, arrays flattened to lines.
    ///
    /// # Errors
    ///
    /// The server's own error reply (as [`io::ErrorKind::Other`], its text unchanged), or a broken connection.
    pub fn call(&mut self, words: &[&str]) -> io::Result<String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let length = || rest.parse::<i64>().map_err(io::Error::other);
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "-" => Err(io::Error::other(rest.to_owned())),
            "$" => self.bulk(length()?),
            "*" => {
                let parts = (0..length()?).map(|_| self.reply()).collect::<io::Result<Vec<_>>>()?;
                Ok(parts.join("\n"))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn bulk(&mut self, length: i64) -> io::Result<String> {
        let Ok(length) = usize::try_from(length) else { return Ok(String::new()) };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    /// One field of INFO, such as `run_id`, which no two servers share.
    ///
    /// # Errors
    ///
    /// As [`Redis::call`], and [`io::ErrorKind::NotFound`] when the server has no such field.
    pub fn info(&mut self, field: &str) -> io::Result<String> {
        let info = self.call(&["INFO"])?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
