//! What a check wants to know of the API beside the nodes: may we ask, do the clocks agree, where are the caches?

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Account, Action, ApiError, Cause, Selection, client::connect, find, listing::Lister};
use crate::{Options, Source, text::plain};

/// What the API lets this host do, and how the two stand to each other.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The region that was asked; empty: it never came to that.
    pub region: String,
    /// The calls that the sources need, and those that failed.
    pub calls: BTreeMap<Action, Result<(), Cause>>,
    /// By how many seconds this host's clock is ahead of AWS's; `None`: no answer told the time.
    pub clock_ahead: Option<i64>,
    /// Where the sources' caches are, each place once.
    pub places: Vec<CacheLocation>,
}

/// The VPC and the subnets of some caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheLocation {
    /// One of the caches there.
    pub cache: String,
    /// `VpcId` of its subnet group; `None` for a serverless cache, which only tells its subnets.
    pub vpc: Option<String>,
    /// The subnets' ids.
    pub subnets: Vec<String>,
}

/// Makes the calls that the sources need; `None` if they need none.
///
/// The caches' subnet groups are asked for only where `with_places`, as that is a call that nothing else makes.
pub async fn survey(sources: &[Source], options: &Options, with_places: bool) -> Option<Survey> {
    let wanted = Selection::by(sources);
    if wanted == Selection::default() {
        return None;
    }
    let mut survey = Survey::default();
    let api = match connect(options).await {
        Ok(api) => api,
        Err(cause) => {
            survey.calls.extend(needed(wanted).into_iter().map(|action| (action, Err(cause.clone()))));
            return Some(survey);
        }
    };
    let clock = api.clock.clone();
    let lister = Lister { api, deadline: Instant::now() + options.api_deadline };
    survey.calls.extend(needed(wanted).into_iter().map(|action| (action, Ok(()))));
    let account = lister.account(wanted, sources).await;
    let tags = account.tags.values().filter_map(|tags| tags.as_ref().err());
    let errors = [&account.groups.error, &account.clusters.error, &account.serverless.error];
    for ApiError { action, cause, .. } in errors.into_iter().flatten().chain(tags) {
        survey.calls.insert(*action, Err(cause.clone()));
    }
    if with_places {
        places(&lister, sources, &account, &mut survey).await;
    }
    survey.region.clone_from(&account.region);
    survey.clock_ahead = clock.ahead();
    Some(survey)
}

fn needed(wanted: Selection) -> Vec<Action> {
    let calls = [
        (wanted.groups, Action::DescribeReplicationGroups),
        (wanted.clusters, Action::DescribeCacheClusters),
        (wanted.serverless, Action::DescribeServerlessCaches),
        (wanted.tags, Action::ListTagsForResource),
    ];
    calls.into_iter().filter_map(|(is_wanted, action)| is_wanted.then_some(action)).collect()
}

/// Asks for the subnet group of each cache that some source has.
async fn places(lister: &Lister, sources: &[Source], account: &Account, survey: &mut Survey) {
    let nodes = sources.iter().filter_map(|source| Some(find(source, account)?.1)).flatten();
    // A member of a replication group bears its cluster's name, a node of Memcached is one of its cluster.
    let named: BTreeSet<String> =
        nodes.flat_map(|node| [node.id.as_str().to_owned(), node.cluster.into()]).collect();
    let mut groups: BTreeMap<&str, &str> = BTreeMap::new();
    for (cluster, group) in account
        .clusters
        .items
        .iter()
        .filter(|(cluster, _)| named.contains(*cluster))
        .filter_map(|(cluster, found)| Some((cluster, found.cache_subnet_group_name()?)))
    {
        groups.entry(group).or_insert(cluster);
    }
    let action = Action::DescribeCacheSubnetGroups;
    for (group, cluster) in groups {
        let call = lister.client().describe_cache_subnet_groups().cache_subnet_group_name(group);
        match lister.call(action, group, call.send()).await {
            Ok(found) => {
                survey.calls.entry(action).or_insert(Ok(()));
                survey.places.extend(found.cache_subnet_groups().iter().map(|group| CacheLocation {
                    cache: plain(cluster),
                    vpc: group.vpc_id().map(plain),
                    subnets:
                        group.subnets().iter().filter_map(|s| s.subnet_identifier()).map(plain).collect(),
                }));
            }
            Err(cause) => drop(survey.calls.insert(action, Err(cause))),
        }
    }
    let serverless = account.serverless.items.iter().filter(|(name, _)| named.contains(*name));
    survey.places.extend(serverless.map(|(name, cache)| CacheLocation {
        cache: plain(name),
        vpc: None,
        subnets: cache.subnet_ids().iter().map(|subnet| plain(subnet)).collect(),
    }));
}
