//! The calls: side by side where they do not depend on each other, page by page where they do.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use aws_sdk_elasticache::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_elasticache::{
    Client,
    types::{CacheCluster, ReplicationGroup, ServerlessCache},
};
use futures_util::{StreamExt, future::join3, stream};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{
    Account, Listing, Selection,
    client::{Api, connect},
    error::{Action, ApiError, Cause},
};
use crate::{Options, Source};

/// The most that both Describe calls give in one answer (API reference, `MaxRecords`: 20 to 100).
const MAX_RECORDS: i32 = 100;
/// An account has at most a few hundred nodes per region; beyond this the pages go in circles.
const MAX_PAGES: usize = 1_000;
/// The same for entries, whatever the pages hold.
const MAX_ENTRIES: usize = 100_000;
/// How often a list is read that is another each time.
const MAX_READINGS: usize = 4;
/// Tags are one call per cache, and the API throttles.
const TAGS_SIDE_BY_SIDE: usize = 10;

/// Asks the API for everything that the sources need; nothing if that is nothing.
pub(crate) async fn list(sources: &[Source], options: &Options) -> Account {
    let wanted = Selection::by(sources);
    if wanted == Selection::default() {
        return Account::default();
    }
    match connect(options).await {
        Ok(api) => {
            Lister { api, deadline: Instant::now() + options.api_deadline }.account(wanted, sources).await
        }
        Err(cause) => Account {
            groups: Listing::failed(Action::DescribeReplicationGroups, &cause),
            clusters: Listing::failed(Action::DescribeCacheClusters, &cause),
            serverless: Listing::failed(Action::DescribeServerlessCaches, &cause),
            ..Account::default()
        },
    }
}

/// The API, and until when it may take to answer.
pub(super) struct Lister {
    pub(super) api: Api,
    pub(super) deadline: Instant,
}

/// One answer and the marker of the next.
type Page<T> = (Vec<T>, Option<String>);

impl Lister {
    pub(super) async fn account(&self, wanted: Selection, sources: &[Source]) -> Account {
        let Selection { tags, .. } = wanted;
        let (mut groups, mut clusters, serverless) = join3(
            self.read(wanted.groups, tags, Action::DescribeReplicationGroups, || self.groups()),
            self.read(wanted.clusters, tags, Action::DescribeCacheClusters, || self.clusters()),
            self.read(wanted.serverless, tags, Action::DescribeServerlessCaches, || self.serverless()),
        )
        .await;
        self.ask_again_for_groups(&mut groups, sources).await;
        self.ask_again_for_clusters(&mut clusters, &groups, sources).await;

        let mut account =
            Account { region: self.api.region.clone(), groups, clusters, serverless, tags: BTreeMap::new() };
        if wanted.tags {
            account.tags = self.tags(account.arns()).await;
        }
        account
    }

    /// Reads a list; one that is searched for tags until two readings name the same.
    ///
    /// Pages are not one moment: what slips from page 2 to page 1 while that was read already is on neither, and what has
    /// no name in the configuration can't be asked for by it.
    async fn read<T, Answer: Future<Output = Listing<T>>>(
        &self,
        is_wanted: bool,
        is_searched: bool,
        action: Action,
        read: impl Fn() -> Answer,
    ) -> Listing<T> {
        if !is_wanted {
            return Listing::default();
        }
        let mut listing = read().await;
        for _ in 1..MAX_READINGS {
            if !is_searched || listing.pages <= 1 || listing.error.is_some() {
                return listing;
            }
            let again = read().await;
            if again.error.is_some() {
                return Listing { error: again.error, ..listing };
            }
            if again.items.keys().eq(listing.items.keys()) {
                return again;
            }
            listing = again;
        }
        listing.error =
            Some(ApiError { action, page: 1, cause: Cause::Unsettled { readings: MAX_READINGS } });
        listing
    }

    async fn groups(&self) -> Listing<ReplicationGroup> {
        let action = Action::DescribeReplicationGroups;
        let pages = self.pages(action, |marker| async {
            let call =
                self.client().describe_replication_groups().max_records(MAX_RECORDS).set_marker(marker);
            let page = self.call(action, "", call.send()).await?;
            Ok((page.replication_groups.unwrap_or_default(), page.marker))
        });
        Listing::by_name(pages.await, |group| group.replication_group_id.clone())
    }

    async fn clusters(&self) -> Listing<CacheCluster> {
        let action = Action::DescribeCacheClusters;
        let pages = self.pages(action, |marker| async {
            let call = self.client().describe_cache_clusters().show_cache_node_info(true);
            let call = call.max_records(MAX_RECORDS).set_marker(marker);
            let page = self.call(action, "", call.send()).await?;
            Ok((page.cache_clusters.unwrap_or_default(), page.marker))
        });
        Listing::by_name(pages.await, |cluster| cluster.cache_cluster_id.clone())
    }

    async fn serverless(&self) -> Listing<ServerlessCache> {
        let action = Action::DescribeServerlessCaches;
        let pages = self.pages(action, |token| async {
            let call = self.client().describe_serverless_caches().set_next_token(token);
            let page = self.call(action, "", call.send()).await?;
            Ok((page.serverless_caches.unwrap_or_default(), page.next_token))
        });
        Listing::by_name(pages.await, |cache| cache.serverless_cache_name.clone())
    }

    /// Makes one call, of `whom` where it is of one cache, until the deadline.
    pub(super) async fn call<T, E>(
        &self,
        action: Action,
        whom: &str,
        call: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, Cause>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let begin = Instant::now();
        let answer = timeout_at(self.deadline, call).await;
        let answer = answer.map_err(|_| out_of_time());
        let answer = answer.and_then(|answer| answer.map_err(|error| Cause::from_sdk(action, &error)));
        let elapsed = begin.elapsed().as_millis();
        let of = if whom.is_empty() { String::new() } else { format!(" of {whom}") };
        match &answer {
            Ok(_) => debug!("elasticache:{action}{of}: answered after {elapsed} ms"),
            Err(cause) => debug!("elasticache:{action}{of}: {cause} after {elapsed} ms"),
        }
        answer
    }

    /// Reads page after page; what was read before an error stays.
    async fn pages<T, F, Answer>(&self, action: Action, mut call: F) -> Pages<T>
    where
        F: FnMut(Option<String>) -> Answer,
        Answer: Future<Output = Result<Page<T>, Cause>>,
    {
        let mut read = Pages { items: Vec::new(), error: None, pages: 0 };
        let (mut marker, mut seen) = (None, BTreeSet::new());
        loop {
            read.pages += 1;
            let next = match call(marker).await {
                Ok((items, next)) => {
                    read.items.extend(items);
                    next.filter(|next| !next.is_empty())
                }
                Err(cause) => return read.ended_by(action, cause),
            };
            match next {
                None => return read,
                Some(next)
                    if !seen.insert(next.clone())
                        || read.pages >= MAX_PAGES
                        || read.items.len() > MAX_ENTRIES =>
                {
                    return read.ended_by(action, Cause::EndlessPages);
                }
                some => marker = some,
            }
        }
    }

    /// Asks by name for groups that several pages do not show: pages are not one moment.
    async fn ask_again_for_groups(&self, groups: &mut Listing<ReplicationGroup>, sources: &[Source]) {
        let action = Action::DescribeReplicationGroups;
        let named = sources.iter().filter_map(|source| match source {
            Source::ReplicationGroup { id, .. } => Some(id.as_str()),
            _ => None,
        });
        for id in groups.doubtful(named) {
            let call = self.client().describe_replication_groups().replication_group_id(&id);
            let answer = self.call(action, &id, call.send()).await;
            let answer = answer.map(|page| page.replication_groups.unwrap_or_default());
            groups.correct(action, id, answer.map(|found| found.into_iter().next()));
        }
    }

    /// The same for clusters that a source or a group names.
    async fn ask_again_for_clusters(
        &self,
        clusters: &mut Listing<CacheCluster>,
        groups: &Listing<ReplicationGroup>,
        sources: &[Source],
    ) {
        let action = Action::DescribeCacheClusters;
        let named = sources.iter().flat_map(|source| match source {
            Source::CacheCluster { id } => vec![id.as_str()],
            Source::ReplicationGroup { id, .. } => groups
                .items
                .get(id)
                .map(|group| group.member_clusters().iter().map(String::as_str).collect())
                .unwrap_or_default(),
            _ => Vec::new(),
        });
        for id in clusters.doubtful(named) {
            let call =
                self.client().describe_cache_clusters().cache_cluster_id(&id).show_cache_node_info(true);
            let answer = self.call(action, &id, call.send()).await;
            let answer = answer.map(|page| page.cache_clusters.unwrap_or_default());
            clusters.correct(action, id, answer.map(|found| found.into_iter().next()));
        }
    }

    async fn tags(&self, arns: Vec<String>) -> BTreeMap<String, Result<BTreeMap<String, String>, ApiError>> {
        let action = Action::ListTagsForResource;
        let calls = stream::iter(arns).map(|arn| async move {
            let call = self.client().list_tags_for_resource().resource_name(&arn).send();
            let tags =
                self.call(action, &arn, call).await.map_err(|cause| ApiError { action, page: 1, cause }).map(
                    |answer| {
                        let tags = answer.tag_list.unwrap_or_default().into_iter();
                        tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect()
                    },
                );
            (arn, tags)
        });
        calls.buffer_unordered(TAGS_SIDE_BY_SIDE).collect().await
    }

    pub(super) fn client(&self) -> &Client {
        &self.api.client
    }
}

pub(super) fn out_of_time() -> Cause {
    Cause::Timeout { message: "the time for all calls together is up".into() }
}

struct Pages<T> {
    items: Vec<T>,
    error: Option<ApiError>,
    pages: usize,
}

impl<T> Pages<T> {
    fn ended_by(self, action: Action, cause: Cause) -> Self {
        Self { error: Some(ApiError { action, page: self.pages, cause }), ..self }
    }
}

impl<T> Listing<T> {
    fn failed(action: Action, cause: &Cause) -> Self {
        let error = ApiError { action, page: 1, cause: cause.clone() };
        Self { items: BTreeMap::new(), error: Some(error), pages: 0 }
    }

    /// Where an item comes twice, because the list moved between two pages, the later one is the newer.
    fn by_name(read: Pages<T>, name: impl Fn(&T) -> Option<String>) -> Self {
        let items = read.items.into_iter().filter_map(|item| Some((name(&item)?, item))).collect();
        Self { items, error: read.error, pages: read.pages }
    }

    /// The names that are missing from a listing of several pages, which may only have slipped from one to the other.
    fn doubtful<'a>(&self, named: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
        let several = self.pages > 1 && self.error.is_none();
        named.filter(|name| several && !self.items.contains_key(*name)).map(str::to_owned).collect()
    }

    /// Takes in what the API says about one name; an error other than "not found" leaves the listing in doubt.
    fn correct(&mut self, action: Action, name: String, answer: Result<Option<T>, Cause>) {
        match answer {
            Ok(Some(item)) => {
                self.items.insert(name, item);
            }
            Ok(None) | Err(Cause::NotFound { .. }) => {}
            Err(cause) => self.error = Some(ApiError { action, page: 1, cause }),
        }
    }
}

impl Account {
    /// The ARNs of everything that carries tags of its own: groups, clusters outside of groups, serverless caches.
    fn arns(&self) -> Vec<String> {
        let groups = self.groups.items.values().filter_map(|group| group.arn.clone());
        let clusters = self.clusters.items.values().filter(|cluster| cluster.replication_group_id.is_none());
        let clusters = clusters.filter_map(|cluster| cluster.arn.clone());
        let serverless = self.serverless.items.values().filter_map(|cache| cache.arn.clone());
        groups.chain(clusters).chain(serverless).collect()
    }
}
