//! `cachenat`: access from outside a VPC to the nodes of Amazon ElastiCache caches, through the kernel of a NAT instance.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod config;
mod converge;
mod desired;
mod endpoints;
#[cfg(test)]
mod examples;
mod gateway;
mod inventory;
mod memory;
mod output;
mod pending;
mod probe;
mod report;
mod setting;
mod state;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use output::{Exit, say};

fn main() -> ExitCode {
    let exit = commands::run(&Cli::parse()).unwrap_or_else(|error| {
        complain(&error);
        Exit::Error
    });
    ExitCode::from(exit as u8)
}

/// The error, its causes, and the one remedy that no cause below can know.
fn complain(error: &anyhow::Error) {
    say(&format!("error: {error}"));
    for cause in error.chain().skip(1) {
        say(&format!("  caused by: {cause}"));
    }
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    if error.chain().any(denied) {
        say("\nhint: run as root, or grant CAP_NET_ADMIN");
    }
}
