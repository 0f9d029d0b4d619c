//! One source's part of what the API said.

use std::collections::BTreeMap;

use aws_sdk_elasticache::types::{CacheCluster, ConnectionType, ReplicationGroup, ServerlessCache};

use smol_str::SmolStr;

use super::nodes::{self, Doubt, Nodes};
use super::{Account, Listing, near};
use crate::{Coverage, Expose, Node, Source, SourceName, SourceReport, inventory::has_failed, text::plain};

/// The nodes of a source, and how far they are all.
///
/// None for a source that the API has nothing to do with.
pub(crate) fn find(source: &Source, account: &Account) -> Option<(SourceReport, Vec<Node>)> {
    let name = source.name();
    match source {
        Source::ReplicationGroup { id, expose } => Some(replication_group(id, expose, &name, account)),
        Source::CacheCluster { id } => Some(cache_cluster(id, &name, account)),
        Source::ServerlessCache { name: cache } => Some(serverless_cache(cache, &name, account)),
        Source::Tags { tags, expose } => Some(tagged(tags, expose, &name, account)),
        Source::InBand { .. } | Source::Static { .. } => None,
    }
}

type Found = (SourceReport, Vec<Node>);

fn replication_group(id: &str, expose: &Expose, source: &SourceName, account: &Account) -> Found {
    let Some(group) = account.groups.items.get(id) else {
        return missing("replication group", id, &account.groups, source, account);
    };
    let mut found = nodes::of_group(group, &account.clusters, expose, source);
    found.doubts.extend(account.clusters.error.iter().map(Doubt::of_all));
    report(found, source)
}

fn cache_cluster(id: &str, source: &SourceName, account: &Account) -> Found {
    match account.clusters.items.get(id) {
        Some(cluster) => report(nodes::of_cluster(cluster, source), source),
        None => missing("cache cluster", id, &account.clusters, source, account),
    }
}

fn serverless_cache(name: &str, source: &SourceName, account: &Account) -> Found {
    match account.serverless.items.get(name) {
        Some(cache) if is_public(cache) => {
            let error = format!("{} has a public endpoint: clients reach it without a gateway", plain(name));
            (SourceReport::failed(source.clone(), error), Vec::new())
        }
        Some(cache) => report(nodes::of_serverless(cache, source), source),
        None => missing("serverless cache", name, &account.serverless, source, account),
    }
}

/// Every cache that carries all the tags. A cache whose tags could not be read is in doubt.
fn tagged(
    wanted: &BTreeMap<String, String>,
    expose: &Expose,
    source: &SourceName,
    account: &Account,
) -> Found {
    let mut found = Nodes::default();
    let mut failed = Vec::new();
    let mut take =
        |name: Option<&str>, status: Option<&str>, arn: Option<&str>, nodes: &dyn Fn() -> Nodes| {
            let (name, status) = (name.unwrap_or_default(), plain(status.unwrap_or_default()).to_lowercase());
            match account.tags.get(arn.unwrap_or_default()) {
                Some(Ok(tags)) if wanted.iter().all(|(key, value)| tags.get(key) == Some(value)) => {
                    let cache = nodes();
                    found.nodes.extend(cache.nodes);
                    found.doubts.extend(cache.doubts);
                    found.remarks.extend(cache.remarks);
                }
                Some(Ok(_)) => {}
                // It may stay so for months, and whether it has the tags is not told for as long.
                Some(Err(_)) if has_failed(&status) => {
                    found.remarks.push(format!("{} is {status}, and its tags are not told", plain(name)));
                    failed.push(SmolStr::from(plain(name)));
                }
                Some(Err(error)) => {
                    let what = format!("{}: {error}", plain(arn.unwrap_or_default()));
                    found.doubts.push(Doubt::of(name, what));
                }
                None => {}
            }
        };
    for group in account.groups.items.values() {
        take(group.replication_group_id(), group.status(), group.arn(), &|| {
            nodes::of_group(group, &account.clusters, expose, source)
        });
    }
    let standalone = |cluster: &&CacheCluster| cluster.replication_group_id().is_none();
    for cluster in account.clusters.items.values().filter(standalone) {
        take(cluster.cache_cluster_id(), cluster.cache_cluster_status(), cluster.arn(), &|| {
            nodes::of_cluster(cluster, source)
        });
    }
    for cache in account.serverless.items.values().filter(|cache| !is_public(cache)) {
        take(cache.serverless_cache_name(), cache.status(), cache.arn(), &|| {
            nodes::of_serverless(cache, source)
        });
    }

    let errors = [&account.groups.error, &account.clusters.error, &account.serverless.error];
    let errors: Vec<String> = errors.into_iter().flatten().map(ToString::to_string).collect();
    if found.nodes.is_empty() && !errors.is_empty() {
        return (SourceReport::failed(source.clone(), errors.join("; ")), Vec::new());
    }
    // First what explains the others.
    found.doubts.splice(0..0, errors.into_iter().map(Doubt::of_all));
    let (mut report, nodes) = report(found, source);
    let is_of_caches = report.coverage == Coverage::Whole || !report.in_doubt.is_empty();
    if is_of_caches && !failed.is_empty() {
        report.coverage = Coverage::Part;
        report.in_doubt.extend(failed);
    }
    (report, nodes)
}

/// Complete, or partial with the doubts.
fn report(found: Nodes, source: &SourceName) -> Found {
    let mut report = match found.doubts.as_slice() {
        [] => SourceReport::complete(source.clone()),
        [doubt] => SourceReport::partial(source.clone(), &doubt.what),
        [doubt, more @ ..] => {
            SourceReport::partial(source.clone(), format!("{} (and {} more)", doubt.what, more.len()))
        }
    };
    let in_doubt: Option<Vec<SmolStr>> =
        found.doubts.into_iter().map(|doubt| doubt.cache.map(SmolStr::from)).collect();
    report.in_doubt = in_doubt.unwrap_or_default();
    report.remarks = found.remarks;
    (report, found.nodes)
}

/// A name that the listing does not have: not read, or not there.
fn missing<T>(kind: &str, id: &str, listing: &Listing<T>, source: &SourceName, account: &Account) -> Found {
    let report = match &listing.error {
        Some(error) => SourceReport::failed(source.clone(), error),
        None => {
            let hint = near::hint(id, listing.items.keys().map(String::as_str));
            let place = elsewhere(id, account).unwrap_or(hint);
            let error = format!("no {kind} {:?} in {} ({})", plain(id), account.region, plain(&place));
            SourceReport::absent(source.clone(), error)
        }
    };
    (report, Vec::new())
}

/// The kind under which the name does exist, for a source of the wrong kind.
fn elsewhere(id: &str, account: &Account) -> Option<String> {
    let kinds: [(&str, bool); 3] = [
        ("replication_group", Listing::<ReplicationGroup>::has(&account.groups, id)),
        ("cache_cluster", Listing::<CacheCluster>::has(&account.clusters, id)),
        ("serverless_cache", Listing::<ServerlessCache>::has(&account.serverless, id)),
    ];
    kinds.into_iter().find(|(_, has)| *has).map(|(kind, _)| format!("there is a {kind} of this name"))
}

impl<T> Listing<T> {
    fn has(&self, id: &str) -> bool {
        self.items.contains_key(id)
    }
}

fn is_public(cache: &ServerlessCache) -> bool {
    cache.connection_type() == Some(&ConnectionType::Public)
}
