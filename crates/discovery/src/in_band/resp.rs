//! As much of RESP2 as the answers to CLUSTER and AUTH need.
//!
//! Source: the Redis serialization protocol specification.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The longest answer in bytes, whatever it is made of. Of 1,000 nodes it is about 200 KiB.
const MAX_ANSWER: u64 = 8 << 20;
/// The longest line, bulk string and list of an honest answer.
const MAX_BULK: usize = 4 << 20;
const MAX_LINE: u64 = 4 << 10;
const MAX_ITEMS: usize = 100_000;
/// CLUSTER SHARDS nests four deep.
const MAX_DEPTH: usize = 8;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Error(String),
    Integer(i64),
    List(Vec<Value>),
    Null,
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> &[Value] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The value of a key in a flat list of keys and values, which is how RESP2 writes a map.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.list().chunks_exact(2).find_map(|pair| match pair {
            [name, value] if name.text() == Some(key) => Some(value),
            _ => None,
        })
    }
}

/// A command as an array of bulk strings.
pub(super) fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

/// Reads one reply.
///
/// # Errors
///
/// `InvalidData` for what is no RESP2 or exceeds the bounds, else the stream's own.
pub(super) async fn read<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<Value> {
    let mut stream = stream.take(MAX_ANSWER);
    match read_value(&mut stream).await {
        Err(_) if stream.limit() == 0 => Err(invalid("the answer is longer than 8 MiB")),
        answer => answer,
    }
}

async fn read_value<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<Value> {
    let mut open: Vec<(usize, Vec<Value>)> = Vec::new();
    let mut budget = MAX_ITEMS;
    loop {
        let mut value = match read_one(stream).await? {
            Item::Value(value) => value,
            Item::List(length) => {
                budget = budget.checked_sub(length).ok_or_else(|| invalid("the answer is too long"))?;
                if open.len() >= MAX_DEPTH {
                    return Err(invalid("the answer is too deep"));
                }
                if length > 0 {
                    open.push((length, Vec::new()));
                    continue;
                }
                Value::List(Vec::new())
            }
        };
        // Close every list that this value completes.
        loop {
            let Some((length, items)) = open.last_mut() else { return Ok(value) };
            items.push(value);
            if items.len() < *length {
                break;
            }
            let Some((_, items)) = open.pop() else { return Err(invalid("a list ends twice")) };
            value = Value::List(items);
        }
    }
}

enum Item {
    Value(Value),
    List(usize),
}

async fn read_one<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<Item> {
    let line = read_line(stream).await?;
    let mut characters = line.chars();
    let kind = characters.next();
    let rest = characters.as_str();
    let number = || rest.parse::<i64>().map_err(|_| invalid("a number is none"));
    Ok(match kind {
        Some('+') => Item::Value(Value::Text(rest.to_owned())),
        Some('-') => Item::Value(Value::Error(rest.to_owned())),
        Some(':') => Item::Value(Value::Integer(number()?)),
        Some('$') => Item::Value(read_bulk(stream, number()?).await?),
        Some('*') => match usize::try_from(number()?) {
            Ok(length) => Item::List(length),
            Err(_) => Item::Value(Value::Null),
        },
        _ => return Err(invalid("it is no RESP2")),
    })
}

async fn read_bulk<R: AsyncBufRead + Unpin>(stream: &mut R, length: i64) -> io::Result<Value> {
    // -1 is the null bulk string.
    let Ok(length) = usize::try_from(length) else { return Ok(Value::Null) };
    if length > MAX_BULK {
        return Err(invalid("the answer is too long"));
    }
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes).await?;
    match bytes.strip_suffix(b"\r\n") {
        Some(text) => Ok(Value::Text(String::from_utf8_lossy(text).into_owned())),
        None => Err(invalid("a string does not end where it should")),
    }
}

/// A line without its end.
pub(super) async fn read_line<R: AsyncBufRead + Unpin>(stream: &mut R) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(invalid("a line does not end")),
    }
}

pub(super) fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> io::Result<Value> {
        let mut stream = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(&mut stream))
    }

    #[test]
    fn replies_of_every_kind_are_read() {
        let list = parse(b"*4\r\n$2\r\nid\r\n:-7\r\n*0\r\n*2\r\n$-1\r\n+OK\r\n").unwrap();
        let text = |text: &str| Value::Text(text.into());
        let inner = Value::List(vec![Value::Null, text("OK")]);
        assert_eq!(list, Value::List(vec![text("id"), Value::Integer(-7), Value::List(vec![]), inner]));
        assert_eq!(parse(b"-ERR no\r\n").unwrap(), Value::Error("ERR no".into()));
    }

    #[test]
    fn a_map_is_a_list_of_pairs() {
        let map = parse(b"*4\r\n+a\r\n:1\r\n+b\r\n:2\r\n").unwrap();
        assert_eq!(map.get("b"), Some(&Value::Integer(2)));
        assert_eq!(map.get("c"), None);
    }

    #[test]
    fn an_answer_without_end_is_refused() {
        for bytes in [
            &b"$99999999999\r\n"[..],
            b"*99999999\r\n",
            b"$3\r\nabcd\r\n",
            b"",
            b"*1\r\n",
            b"hello\r\n",
            b":x\r\n",
        ] {
            assert!(parse(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(parse("*1\r\n".repeat(9).as_bytes()).is_err());
    }

    #[test]
    fn many_long_strings_are_refused_as_well() {
        let bulk = [b"$1048576\r\n".as_slice(), &[b'x'; 1 << 20], b"\r\n"].concat();
        let answer = |strings: usize| [format!("*{strings}\r\n").as_bytes(), &bulk.repeat(strings)].concat();
        assert_eq!(parse(&answer(7)).unwrap().list().len(), 7);
        assert_eq!(parse(&answer(8)).unwrap_err().to_string(), "the answer is longer than 8 MiB");
    }

    #[test]
    fn a_command_is_counted_not_quoted() {
        assert_eq!(command(&["AUTH", "a b\r\n"]), b"*2\r\n$4\r\nAUTH\r\n$5\r\na b\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn almost_resp_does_not_make_it_panic(bytes in r"([*$:+-]-?[0-9]{0,3}\r\n[a-z]{0,3}){0,20}") {
            let _ = parse(bytes.as_bytes());
        }
    }
}
