//! The SDK's client: where it calls, as whom, and how long it waits.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, Region, default_provider::credentials::DefaultCredentialsChain,
    environment::EnvironmentVariableRegionProvider, meta::region::ProvideRegion,
    profile::ProfileFileRegionProvider, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_elasticache::Client;

use super::{answer::WholeAnswer, clock::Clock, error::Cause};
use crate::{Imds, Options};

/// A client and the region that it asks.
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) region: String,
    pub(crate) clock: Clock,
}

/// Sets the client up. The only network traffic may be one question to IMDS for the region.
///
/// The SDK's usual chains hold (environment, profile, container, instance role), but IMDS gets one try of a second.
///
/// # Errors
///
/// [`Cause::NoRegion`].
pub(crate) async fn connect(options: &Options) -> Result<Api, Cause> {
    let region = find_region(options).await.ok_or(Cause::NoRegion)?;
    let mut config = aws_config::defaults(BehaviorVersion::latest())
        .region(region.clone())
        .timeout_config(timeouts())
        .retry_config(retries());
    if let Some(endpoint) = &options.endpoint {
        config = config.endpoint_url(endpoint);
    }
    config = match &options.credentials {
        Some(credentials) => config.credentials_provider(credentials.clone()),
        None => config.credentials_provider(usual_credentials(region.clone(), &options.imds).await),
    };
    let clock = Clock::default();
    let config = aws_sdk_elasticache::config::Builder::from(&config.load().await);
    let config = config.interceptor(WholeAnswer).interceptor(clock.clone());
    Ok(Api { client: Client::from_conf(config.build()), region: region.to_string(), clock })
}

async fn usual_credentials(region: Region, imds: &Imds) -> DefaultCredentialsChain {
    DefaultCredentialsChain::builder().region(region).imds_client(imds.client()).build().await
}

async fn find_region(options: &Options) -> Option<Region> {
    if let Some(region) = &options.region {
        return Some(Region::new(region.clone()));
    }
    if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
        return Some(region);
    }
    if let Some(region) = ProfileFileRegionProvider::new().region().await {
        return Some(region);
    }
    let facts = options.imds.facts().await?;
    facts.region.clone().map(Region::new)
}

/// Three tries of at most four seconds each: a run by cron ends well before the next.
fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .read_timeout(Duration::from_secs(4))
        .operation_attempt_timeout(Duration::from_secs(4))
        .operation_timeout(Duration::from_secs(12))
        .build()
}

fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(3)
        .with_initial_backoff(Duration::from_millis(200))
        .with_max_backoff(Duration::from_secs(2))
}
