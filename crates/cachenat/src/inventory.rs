//! The inventory to work from: discovered now, or taken from a file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use discovery::{
    Admission, Imds, Inventory, Options, Source, SourceName, SourceReport, admit, list, resolve,
};
use plan::readd_unread_nodes;
use tokio::runtime::{Builder, Runtime};

use crate::args::Global;
use crate::config::Config;

/// How long to wait between two tries of `--wait`.
const PAUSE: Duration = Duration::from_secs(2);

/// The longest inventory that is read, in bytes: 60,000 nodes take 17 MB.
const MAX_INVENTORY: u64 = 64 << 20;

/// Makes the inventory: of the one that was `given` if there is one, else from the sources, again and again until all are
/// whole or `wait` is over.
///
/// `last_good` tells the names to look up for a source that cannot be read, and whether a file that does not speak of
/// a source leaves something open.
pub(crate) fn take(
    config: &Config,
    options: &Options,
    given: Option<Inventory>,
    last_good: Option<&Inventory>,
    wait: Duration,
) -> anyhow::Result<Inventory> {
    match given {
        Some(given) => completed(given, config, options, last_good),
        None => discovered(config, options, last_good, wait),
    }
}

/// The inventory that `--inventory` names, if it does, as it stands in the file (`-` is standard input).
///
/// It is read before the last good one, so that its text is gone when that comes: for 60,000 nodes each takes 17 MB.
pub(crate) fn given(global: &Global) -> anyhow::Result<Option<Inventory>> {
    global.inventory.as_deref().map(read).transpose()
}

/// An inventory from a file, which is trusted no more than DNS and may not speak of all sources.
fn completed(
    given: Inventory,
    config: &Config,
    options: &Options,
    last_good: Option<&Inventory>,
) -> anyhow::Result<Inventory> {
    let inventory = with_reports(given, config, last_good);
    let admission = runtime()?.block_on(options.admission());
    Ok(admitted(inventory, &admission))
}

fn discovered(
    config: &Config,
    options: &Options,
    last_good: Option<&Inventory>,
    wait: Duration,
) -> anyhow::Result<Inventory> {
    let sources = sources(config)?;
    let runtime = runtime()?;
    let deadline = Instant::now() + wait;
    loop {
        let inventory = runtime.block_on(async {
            let listed = readd_unread_nodes(list(&sources, options).await, last_good);
            resolve(listed, options).await.0
        });
        if inventory.is_complete() || Instant::now() + PAUSE > deadline {
            return Ok(inventory);
        }
        thread::sleep(PAUSE);
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("starting tokio")
}

/// How discovery goes about it where these addresses may be targets.
pub(crate) fn options(config: &Config, admission: Admission, imds: &Imds) -> Options {
    let (region, imds) = (config.region.clone(), imds.clone());
    Options { region, admission, imds, ..Options::default() }.with_scopes(config.asked())
}

/// A warning for each source whose password others on the way can read.
pub(crate) fn clear_text_passwords(config: &Config) -> impl Iterator<Item = String> {
    config.asked().filter_map(|source| match source {
        Source::InBand { seed, .. } if seed.sends_clear_password() => Some(format!(
            "{}: its password goes to {} in clear text; add tls: true to the source if the cache speaks TLS",
            source.name(),
            seed.address()
        )),
        _ => None,
    })
}

/// The sources to discover.
///
/// # Errors
///
/// If there is none: an empty list is more often a slip than the wish to forward nothing.
pub(crate) fn sources(config: &Config) -> anyhow::Result<Vec<Source>> {
    if config.sources.is_empty() {
        let file = config.file.display();
        anyhow::bail!(
            "{file}: sources: none is configured; add one, or run 'cachenat remove' to forward nothing"
        );
    }
    Ok(config.sources.iter().map(|configured| configured.source.clone()).collect())
}

/// An inventory file may be a pipe (`<(...)` of a shell), so only the amount that is read is bounded.
fn read(file: &Path) -> anyhow::Result<Inventory> {
    let name = format!("inventory {}", file.display());
    let text = match file == Path::new("-") {
        true => bounded(io::stdin().lock(), MAX_INVENTORY),
        false => File::open(file).and_then(|file| bounded(file, MAX_INVENTORY)),
    };
    let text = text.with_context(|| name.clone())?;
    Inventory::from_json(&text).with_context(|| name)
}

fn bounded(source: impl Read, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    source.take(limit + 1).read_to_string(&mut text)?;
    match text.len() as u64 > limit {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes"))),
        false => Ok(text),
    }
}

/// Gives each source that the file's nodes or the configuration name a report, where the file has none.
///
/// Nodes without a report are taken as they are. A source of the configuration that the file does not speak of at all
/// was not read; that leaves something open only if it had nodes.
fn with_reports(mut inventory: Inventory, config: &Config, last_good: Option<&Inventory>) -> Inventory {
    let mut reported: BTreeSet<SourceName> =
        inventory.sources.iter().map(|report| report.source.clone()).collect();
    for node in &inventory.nodes {
        if reported.insert(node.source.clone()) {
            inventory.sources.push(SourceReport::complete(node.source.clone()));
        }
    }
    let before = last_good.iter().flat_map(|before| &before.nodes);
    let had_nodes: BTreeSet<&SourceName> = before.map(|node| &node.source).collect();
    for source in config.sources.iter().map(|configured| configured.source.name()) {
        if had_nodes.contains(&source) && reported.insert(source.clone()) {
            inventory.sources.push(SourceReport::failed(source, "the inventory file does not speak of it"));
        }
    }
    inventory
}

/// Takes away the addresses that may not be targets; a file is trusted no more than DNS.
fn admitted(mut inventory: Inventory, admission: &Admission) -> Inventory {
    for node in &mut inventory.nodes {
        let refused = node.addresses.iter().find_map(|&address| admit(address, admission).err());
        let Some(refusal) = refused else { continue };
        node.addresses.retain(|&address| admit(address, admission).is_ok());
        node.error = Some(refusal.to_string());
        if let Some(report) = inventory.sources.iter_mut().find(|report| report.source == node.source) {
            report.lower_to_partial(format!("{}: {refusal}", node.id));
        }
    }
    inventory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_inventory_is_refused() {
        assert_eq!(bounded(&b"1234"[..], 4).unwrap(), "1234");
        let error = bounded(io::repeat(b'1'), 4).unwrap_err();
        assert_eq!(error.to_string(), "it is longer than 4 bytes");
        let zeroes = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(format!("{zeroes:#}"), "inventory /dev/zero: it is longer than 67108864 bytes");
    }
}
