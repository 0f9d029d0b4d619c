//! What went wrong with a call, in words that name the act and the remedy.

use std::fmt;

use aws_sdk_elasticache::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error;

use crate::text::{innermost, plain};

/// The calls that discovery makes. Each is an IAM action of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Shards, roles and endpoints of replication groups.
    DescribeReplicationGroups,
    /// Nodes of every cluster.
    DescribeCacheClusters,
    /// Endpoints of serverless caches.
    DescribeServerlessCaches,
    /// Tags of one resource.
    ListTagsForResource,
    /// VPC and subnets of a cluster; only a check asks.
    DescribeCacheSubnetGroups,
}

/// A call that gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{action}{place}: {cause}", place = Page(*page))]
pub struct ApiError {
    /// The call.
    pub action: Action,
    /// Which page of the answer, from 1.
    pub page: usize,
    /// What went wrong.
    pub cause: Cause,
}

/// What went wrong with a call. Texts are plain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// AccessDenied.
    #[error("not allowed: add elasticache:{action} to the IAM policy of this role ({message})")]
    AccessDenied {
        /// The missing permission.
        action: Action,
        /// The API's words.
        message: String,
    },
    /// One of the throttling codes, after the retries.
    #[error("throttled by AWS ({code}), also after retries")]
    Throttled {
        /// The API's code.
        code: String,
    },
    /// ExpiredToken and its like.
    #[error("the AWS credentials are expired ({message}): renew them, or use the instance's role")]
    Expired {
        /// The API's words.
        message: String,
    },
    /// Credentials that the API does not know.
    #[error("AWS does not accept the credentials ({code}: {message})")]
    Credentials {
        /// The API's code.
        code: String,
        /// The API's words.
        message: String,
    },
    /// The signature's time is not now.
    #[error("AWS refuses the request's time ({message}): set this host's clock (chronyc tracking)")]
    Clock {
        /// The API's words.
        message: String,
    },
    /// There are none.
    #[error(
        "no AWS credentials: give the instance a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID ({message})"
    )]
    NoCredentials {
        /// The SDK's words.
        message: String,
    },
    /// There is none.
    #[error("no AWS region: set `aws: {{region: ...}}` in the config, or AWS_REGION")]
    NoRegion,
    /// The API's word that the thing asked for by name does not exist.
    #[error("{message}")]
    NotFound {
        /// The API's words.
        message: String,
    },
    /// No answer in time.
    #[error("no answer in time ({message})")]
    Timeout {
        /// What waited.
        message: String,
    },
    /// Refused, reset, no route, an unknown host, TLS.
    #[error("no connection: {message}")]
    Connection {
        /// The causes.
        message: String,
    },
    /// An answer that is not the API's.
    #[error("the answer makes no sense (HTTP {status}): {message}")]
    Malformed {
        /// The HTTP status.
        status: u16,
        /// The parser's words.
        message: String,
    },
    /// The pages never end.
    #[error("the pages do not end")]
    EndlessPages,
    /// No two readings of a list name the same.
    #[error("the list changed during each of {readings} readings")]
    Unsettled {
        /// How many there were.
        readings: usize,
    },
    /// Any other error of the API.
    #[error("{code}: {message}")]
    Api {
        /// The API's code.
        code: String,
        /// The API's words.
        message: String,
    },
}

impl Cause {
    /// Sorts an SDK error.
    ///
    /// The codes are those of the Query protocol's common errors and of botocore's retry table.
    pub(crate) fn from_sdk<E>(action: Action, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let message = innermost(error);
        match error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let words = plain(service.err().message().unwrap_or("no message"));
                match service.err().code() {
                    Some(code) => Self::from_code(action, &plain(code), words),
                    None => Self::Malformed { status, message: beginning(service.raw().body().bytes()) },
                }
            }
            SdkError::ResponseError(response) => {
                let status = response.raw().status().as_u16();
                Self::Malformed { status, message }
            }
            SdkError::TimeoutError(_) => Self::Timeout { message },
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::Timeout { message },
            // Credentials are fetched while the request is made; their error arrives as a failure to send it.
            _ if has_credentials_error(error) => Self::NoCredentials { message },
            _ => Self::Connection { message: with_way(message, |name| std::env::var(name).ok()) },
        }
    }

    fn from_code(action: Action, code: &str, message: String) -> Self {
        let code = code.to_owned();
        let speaks_of_time = ["expired", "current", "skew"].iter().any(|word| message.contains(word));
        match code.as_str() {
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "NotAuthorized" => {
                Self::AccessDenied { action, message }
            }
            "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "SlowDown"
            | "RequestThrottled" => Self::Throttled { code },
            "ExpiredToken" | "ExpiredTokenException" => Self::Expired { message },
            "RequestExpired" | "RequestTimeTooSkewed" => Self::Clock { message },
            "SignatureDoesNotMatch" | "InvalidSignatureException" if speaks_of_time => {
                Self::Clock { message }
            }
            "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "AuthFailure"
            | "MissingAuthenticationToken"
            | "OptInRequired" => Self::Credentials { code, message },
            "CacheClusterNotFound" | "ReplicationGroupNotFoundFault" | "ServerlessCacheNotFoundFault" => {
                Self::NotFound { message }
            }
            _ => Self::Api { code, message },
        }
    }
}

/// The message, and what on this host decides the way to the API: the proxy that variables name, and the name server.
///
/// What a variable holds is not shown: a proxy's address may have a password in it.
fn with_way(message: String, variable: impl Fn(&str) -> Option<String>) -> String {
    const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let set = |name| Some((name, variable(name).filter(|value| !value.is_empty())?));
    if let Some((name, value)) = PROXIES.into_iter().find_map(set) {
        let host = value.split_once("://").map_or(value.as_str(), |(_, rest)| rest);
        let host = host.rsplit('@').next().unwrap_or_default();
        return if host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
            format!(
                "{message}; the way is the proxy that {name} names: see whether it answers, or unset {name}"
            )
        } else {
            format!("{message}; {name} is set, but is no proxy's address such as http://10.0.0.9:3128")
        };
    }
    if message.contains("lookup address") {
        return format!("{message}; see the nameserver in /etc/resolv.conf");
    }
    message
}

/// What a body that is no XML begins with.
fn beginning(body: Option<&[u8]>) -> String {
    let text: String = String::from_utf8_lossy(body.unwrap_or_default()).chars().take(80).collect();
    if text.is_empty() { "an empty body".to_owned() } else { plain(&text) }
}

fn has_credentials_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.any(|cause| cause.is::<aws_credential_types::provider::error::CredentialsError>())
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DescribeReplicationGroups => "DescribeReplicationGroups",
            Self::DescribeCacheClusters => "DescribeCacheClusters",
            Self::DescribeServerlessCaches => "DescribeServerlessCaches",
            Self::ListTagsForResource => "ListTagsForResource",
            Self::DescribeCacheSubnetGroups => "DescribeCacheSubnetGroups",
        })
    }
}

/// A page's number, which goes without saying for the first.
struct Page(usize);

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => Ok(()),
            page => write!(f, ", page {page}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_a_connection_names_the_proxy_or_the_name_server() {
        let told = |message: &str, proxy: Option<&str>| {
            let variable = |name: &str| proxy.filter(|_| name == "https_proxy").map(str::to_owned);
            with_way(message.to_owned(), variable)
        };
        assert_eq!(told("refused", None), "refused");
        assert!(told("failed to lookup address information", None).ends_with("/etc/resolv.conf"));
        let named = told("refused", Some("http://user:secret@10.0.0.9:3128"));
        assert!(named.contains("the proxy that https_proxy names") && !named.contains("secret"), "{named}");
        assert!(told("refused", Some(":::bad")).contains("no proxy's address"));
    }
}
