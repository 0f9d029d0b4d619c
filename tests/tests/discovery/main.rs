//! Discovery against the fake AWS and the fake name server: every kind of cache, state and failure.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, missing_docs)]

mod api_failures;
mod boto3;
mod dns;
mod environment;
mod in_band;
mod kinds;
mod metadata;
mod setup;
mod states;
