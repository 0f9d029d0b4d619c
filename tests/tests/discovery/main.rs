//! Discovery against the fake AWS and the fake name server: every kind of cache, state and failure.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, missing_docs)]

mod api_failures;
mod dns;
mod kinds;
mod metadata;
mod setup;
mod states;
