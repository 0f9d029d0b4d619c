//! `cachenat`: access from outside a VPC to the nodes of Amazon ElastiCache caches, through the kernel of a NAT instance.

#![forbid(unsafe_code)]

mod args;
mod client_lists;
mod clock;
mod commands;
mod config;
mod converge;
#[cfg(test)]
mod corpus;
mod cut;
#[cfg(test)]
mod examples;
mod gateway;
mod inventory;
mod metrics;
mod moves;
mod output;
mod pending;
mod report;
mod rounds;
mod run_context;
mod runners;
mod session;
mod span;
mod state;
mod sysctls;
mod turn;
mod unsaved;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use output::{Exit, Output};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = output::debug::begin(&cli.global).and_then(|()| commands::run(&cli)).unwrap_or_else(|error| {
        Output::new(&cli.global).error(&error, hint(&error));
        Exit::Error
    });
    output::finish();
    ExitCode::from(exit as u8)
}

/// The one remedy that no cause of an error can know.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    error.chain().any(denied).then_some("run as root, or grant CAP_NET_ADMIN")
}
