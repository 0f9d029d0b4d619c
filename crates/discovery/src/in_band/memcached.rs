//! Memcached: `config get cluster`, which ElastiCache adds for its auto discovery.
//!
//! Source: "Adding auto discovery to your client library" of the ElastiCache user guide. The answer is
//! `CONFIG cluster 0 LENGTH`, then the version, then `host|ip|port` records between spaces, then `END`.

use std::{io, num::NonZeroU16};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{ClusterView, InBandError, Member, connection, elasticache_label, resp::invalid};
use crate::{Engine, HostPort, Options};

/// 60 nodes are about 6 KiB.
const MAX_ANSWER: u64 = 256 << 10;

/// Asks the seed (a node or the configuration endpoint) for its cluster.
pub(super) async fn ask(name: &str, seed: &HostPort, options: &Options) -> Result<ClusterView, InBandError> {
    let stream = connection::open(seed, None, options).await?;
    let text = read(BufReader::new(stream)).await.map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => {
            InBandError::Malformed { seed: seed.clone(), reason: source.to_string() }
        }
        _ => InBandError::Connection { seed: seed.clone(), source },
    })?;
    let Some(text) = text else { return Err(InBandError::NotElastiCache { seed: seed.clone() }) };
    parse(name, &text).map_err(|reason| InBandError::Malformed { seed: seed.clone(), reason })
}

/// The answer's lines before `END`; none if the server does not know the command.
async fn read<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut stream: BufReader<S>,
) -> io::Result<Option<String>> {
    stream.write_all(b"config get cluster\r\n").await?;
    stream.flush().await?;
    let mut lines = stream.take(MAX_ANSWER);
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line).await? == 0 {
            return Err(invalid("it ends before its END"));
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        match line.trim_end() {
            "END" => return Ok(Some(text)),
            "ERROR" => return Ok(None),
            refused if refused.starts_with("CLIENT_ERROR") || refused.starts_with("SERVER_ERROR") => {
                return Ok(None);
            }
            _ => text.push_str(&line),
        }
    }
}

fn parse(name: &str, text: &str) -> Result<ClusterView, String> {
    let mut lines = text.lines().map(str::trim_end);
    match lines.next() {
        Some(header) if header.starts_with("CONFIG cluster ") => {}
        _ => return Err("it does not begin with CONFIG cluster".to_owned()),
    }
    lines.next().and_then(|version| version.parse::<u64>().ok()).ok_or("its version is no number")?;
    let records = lines.next().unwrap_or_default().split_whitespace();
    let members = records.map(|record| member(name, record)).collect::<Option<Vec<_>>>();
    let members = members.ok_or("a record is not host|ip|port")?;
    if members.is_empty() {
        return Err("it names no nodes".to_owned());
    }
    Ok(ClusterView { engine: Some(Engine::Memcached), members, ..ClusterView::default() })
}

fn member(name: &str, record: &str) -> Option<Member> {
    let mut fields = record.split('|');
    let (host, ip, port) = (fields.next()?, fields.next()?, fields.next()?.parse::<NonZeroU16>().ok()?);
    let host = match (host, ip) {
        ("", "") => return None,
        ("", ip) => ip,
        (host, _) => host,
    };
    Some(Member {
        id: member_id(name, host, port),
        shard: None,
        role: None,
        status: "available".to_owned(),
        host: host.to_owned(),
        port,
    })
}

/// `sessions-0001` of `sessions.abc123.0001.use2.cache.amazonaws.com`, the id that the API's answers lead to.
fn member_id(name: &str, host: &str, port: NonZeroU16) -> String {
    let is_number = |label: &&str| label.len() == 4 && label.bytes().all(|byte| byte.is_ascii_digit());
    match (elasticache_label(host), host.split('.').find(is_number)) {
        (Some(label), Some(number)) => format!("{label}-{number}"),
        _ => format!("{name}-{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_user_guides_answer_is_understood() {
        let text = "CONFIG cluster 0 136\r\n12\n\
                    sessions.abc123.0001.use2.cache.amazonaws.com|10.0.1.230|11211 \
                    sessions.abc123.0002.use2.cache.amazonaws.com|10.0.1.231|11211\n\r\n";
        let told = parse("lab", text).unwrap();
        let ids: Vec<&str> = told.members.iter().map(|member| member.id.as_str()).collect();
        assert_eq!(ids, ["sessions-0001", "sessions-0002"]);
    }

    #[test]
    fn a_node_without_a_name_goes_by_its_address() {
        let told = parse("lab", "CONFIG cluster 0 20\r\n1\n|10.0.1.230|11211\n").unwrap();
        assert_eq!(
            (told.members[0].id.as_str(), told.members[0].host.as_str()),
            ("lab-10.0.1.230:11211", "10.0.1.230")
        );
    }

    #[test]
    fn half_an_answer_is_refused() {
        for text in [
            "",
            "CONFIG cluster 0 9\r\n",
            "CONFIG cluster 0 9\r\nx\na|b|1\n",
            "CONFIG cluster 0 9\r\n1\n\n",
            "CONFIG cluster 0 9\r\n1\na|b|0\n",
            "CONFIG cluster 0 9\r\n1\na|b\n",
            "VALUE x\r\n1\na|b|1\n",
        ] {
            assert!(parse("lab", text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(CONFIG cluster 0 9\r\n)?[0-9|a-z \n]{0,60}") {
            let _ = parse("lab", &text);
        }
    }
}
