//! The ElastiCache API: asked once for all sources, then read by pure functions.

mod answer;
mod client;
mod clock;
mod error;
mod listing;
mod near;
mod nodes;
mod select;
mod survey;

pub use error::{Action, ApiError, Cause};
pub(crate) use listing::list;
pub(crate) use select::find;
pub use survey::{CacheLocation, Survey, survey};

use std::collections::BTreeMap;

use aws_sdk_elasticache::types::{CacheCluster, ReplicationGroup, ServerlessCache};

use crate::Source;

/// What the API said about the account and region, as far as some source needs it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The region that was asked.
    region: String,
    /// `DescribeReplicationGroups`.
    groups: Listing<ReplicationGroup>,
    /// `DescribeCacheClusters` with `ShowCacheNodeInfo`.
    clusters: Listing<CacheCluster>,
    /// `DescribeServerlessCaches`.
    serverless: Listing<ServerlessCache>,
    /// `ListTagsForResource` by ARN.
    tags: BTreeMap<String, Result<BTreeMap<String, String>, ApiError>>,
}

/// Everything of one kind, by name, and what kept the rest from being read.
#[derive(Debug)]
pub(crate) struct Listing<T> {
    items: BTreeMap<String, T>,
    /// Present: the listing is not whole.
    error: Option<ApiError>,
    /// How many answers it took. One answer is one moment; several may straddle a change.
    pages: usize,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), error: None, pages: 0 }
    }
}

/// Which listings the sources need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Selection {
    groups: bool,
    clusters: bool,
    serverless: bool,
    tags: bool,
}

impl Selection {
    fn by(sources: &[Source]) -> Self {
        let any = |wants: fn(&Source) -> bool| sources.iter().any(wants);
        let tags = any(|source| matches!(source, Source::Tags { .. }));
        let groups = tags || any(|source| matches!(source, Source::ReplicationGroup { .. }));
        Self {
            groups,
            clusters: groups || any(|source| matches!(source, Source::CacheCluster { .. })),
            serverless: tags || any(|source| matches!(source, Source::ServerlessCache { .. })),
            tags,
        }
    }
}
