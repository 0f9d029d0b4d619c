//! The fake's answers as data, which can be read from a file.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An account's caches in the shapes that boto3 and `aws elasticache describe-...` print.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Entries of `ReplicationGroups`.
    pub replication_groups: Vec<Value>,
    /// Entries of `CacheClusters`, with their `CacheNodes`.
    pub cache_clusters: Vec<Value>,
    /// Entries of `ServerlessCaches`.
    pub serverless_caches: Vec<Value>,
    /// Entries of `CacheSubnetGroups`; none: the one that all clusters are in, in `vpc-0example` and `subnet-0example`.
    pub subnet_groups: Vec<Value>,
    /// Tags by ARN.
    pub tags: BTreeMap<String, BTreeMap<String, String>>,
    /// Instance metadata by path below `/latest/meta-data/`; none: there is no IMDS.
    pub imds: Option<BTreeMap<String, String>>,
    /// Entries per answer, if fewer than the caller asks for.
    pub page_size: Option<usize>,
    /// Every marker leads back to the first page.
    pub loop_pages: bool,
    /// How long every answer takes.
    pub delay_ms: u64,
    /// How far the service's clock is ahead of this host's.
    pub clock_ahead_s: i64,
    /// The faults; the first that matches applies.
    pub faults: Vec<Fault>,
}

/// A fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The affected action; all if `None`.
    #[serde(default)]
    pub action: Option<String>,
    /// The affected page, from 1; all if `None`.
    #[serde(default)]
    pub page: Option<usize>,
    /// How often it happens; always if `None`.
    #[serde(default)]
    pub times: Option<usize>,
    /// What happens.
    pub how: How,
}

/// The kind of a fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// An error of the Query protocol.
    Error {
        /// The HTTP status.
        status: u16,
        /// `Throttling`, `AccessDenied`, ...
        code: String,
        /// For people.
        message: String,
    },
    /// A load balancer's page: 500, HTML.
    Html,
    /// No answer, ever.
    Hang,
    /// The connection is reset instead of an answer.
    Reset,
    /// The answer breaks off in the middle.
    HalfBody,
    /// The HTTP answer is complete, but its XML is truncated.
    HalfXml,
    /// A chunked answer that begins like this, and then repeats a piece forever.
    Flood {
        /// How it begins.
        begin: String,
        /// What is repeated.
        piece: String,
    },
    /// The same, a piece every 20 ms.
    Drip {
        /// What is repeated.
        piece: String,
    },
    /// A body of its own.
    Body {
        /// The body.
        body: String,
    },
    /// The account changes just before this answer.
    Becomes(Box<Scenario>),
}

impl Fault {
    /// A fault that always affects an action.
    pub fn of(action: &str, how: How) -> Self {
        Self { action: Some(action.to_owned()), page: None, times: None, how }
    }

    /// Restricts the fault to one page.
    #[must_use]
    pub fn on_page(self, page: usize) -> Self {
        Self { page: Some(page), ..self }
    }

    /// Limits how often the fault happens.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times: Some(times), ..self }
    }
}

impl How {
    /// An error of the Query protocol: 400 unless the code is known to have another status.
    pub fn error(code: &str, message: &str) -> Self {
        let status = match code {
            "AccessDenied" | "ExpiredToken" | "SignatureDoesNotMatch" | "InvalidClientTokenId" => 403,
            "InternalFailure" => 500,
            "ServiceUnavailable" | "RequestLimitExceeded" => 503,
            _ if code.contains("NotFound") => 404,
            _ => 400,
        };
        Self::Error { status, code: code.to_owned(), message: message.to_owned() }
    }
}

impl Scenario {
    /// Reads a scenario from a JSON file.
    ///
    /// # Panics
    ///
    /// If the file is not a scenario.
    pub fn load(path: &Path) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The fault for this call, if any; counts it.
    pub(super) fn fault(&mut self, action: &str, page: usize) -> Option<How> {
        let fits = |fault: &&mut Fault| {
            fault.action.as_deref().is_none_or(|of| of == action)
                && fault.page.is_none_or(|of| of == page)
                && fault.times != Some(0)
        };
        let fault = self.faults.iter_mut().find(fits)?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.how.clone())
    }
}
