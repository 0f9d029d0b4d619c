//! The command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rules::ForwardId;

use crate::span::{DAY, Span};

/// Forwards ports of this NAT instance to the nodes of ElastiCache caches, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "cachenat", version, long_version = LONG_VERSION, max_term_width = 100, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The version, the commit and the target that it was built for.
const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("CACHENAT_BUILD"), ")");

const EXIT_CODES: &str = "\
Exit codes:
  0  success, including when there was nothing to change
  1  diff, check or probe found something
  2  error: nothing was changed
  3  partial success: a source could not be read, or something was kept, skipped, not verified or not saved; see the warnings";

/// The options that every command accepts.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The configuration file
    #[arg(
        long,
        global = true,
        env = "CACHENAT_CONFIG",
        default_value = "/etc/cachenat/config.yaml",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,
    /// Use this output of 'discover --json' instead of running discovery; - for standard input
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) inventory: Option<PathBuf>,
    /// Print only data, warnings and errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Also report when nothing changed, and each API call, DNS answer and decision; -vv adds each netlink message
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log as text, or as one JSON object per line: {"time":1700000000,"level":"warning","message":"..."}
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the nodes of all sources; changes nothing
    #[command(after_help = "Examples:\n  cachenat discover\n  cachenat discover --json > inventory.json")]
    Discover {
        /// Print JSON, for --inventory
        #[arg(long)]
        json: bool,
    },
    /// Print the desired ruleset and kernel settings; changes nothing, needs no privilege
    #[command(
        after_help = "Examples:\n  cachenat render\n  cachenat render --format json > rendered.json\n  \
                      cachenat render | nft --check -f -"
    )]
    Render {
        /// nft: load with 'nft -f'; iptables-restore: the form that AWS documents, for review; json: for 'diff --against'
        #[arg(long, value_enum, default_value_t)]
        format: RenderFormat,
    },
    /// Print what apply would change; changes nothing. Exit code 1: there are differences
    #[command(after_help = "Examples:\n  cachenat diff\n  cachenat diff --format json\n  \
                      cachenat diff --inventory inventory.json --against rendered.json --format markdown")]
    Diff {
        /// text: nft syntax with - and + in front; markdown: a comment for a pull request
        #[arg(long, value_enum, default_value_t)]
        format: DiffFormat,
        /// Compare with this output of 'render --format json' instead of the kernel
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Update the kernel's forwards to the current nodes, once; sends nothing if they are up to date
    #[command(
        after_help = "Examples:\n  cachenat apply\n  cachenat apply --wait 120s        (in EC2 user-data)\n  \
                      * * * * * root cachenat apply    (in /etc/cron.d/cachenat)"
    )]
    Apply {
        /// Report the changes as JSON
        #[arg(long)]
        json: bool,
        /// Accept an answer without nodes, and remove the nodes that its source had before
        #[arg(long)]
        allow_empty: bool,
        /// Roll the change back after this many seconds unless it is confirmed, here or with 'cachenat confirm'
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
        confirm: Option<u64>,
        /// Retry for this long until every source gives a complete answer: 90s, 2m
        #[arg(long, value_name = "DURATION", default_value = "0s", hide_default_value = true)]
        wait: Span<0, DAY>,
    },
    /// Keep the change that 'apply --confirm' made
    #[command(after_help = "Examples:\n  cachenat confirm\n  cachenat confirm --accept")]
    Confirm {
        /// Accept the configuration that was rolled back last, so that timers and 'watch' apply it
        #[arg(long)]
        accept: bool,
    },
    /// Roll an unconfirmed change back; started by 'apply --confirm'
    #[command(hide = true, after_help = "Examples:\n  cachenat guard")]
    Guard,
    /// Keep the forwards up to date: poll DNS and the API, and repair the rules as soon as another program changes them
    #[command(
        after_help = "Examples:\n  cachenat watch\n  cachenat watch --interval 5m --dns-interval 5s\n  \
                      cachenat watch --metrics 127.0.0.1:9379"
    )]
    Watch {
        /// How often to poll the API
        #[arg(long, value_name = "DURATION", default_value = "60s")]
        interval: Span<1, DAY>,
        /// How often to poll DNS; a shorter TTL shortens it
        #[arg(long, value_name = "DURATION", default_value = "2s")]
        dns_interval: Span<1, DAY>,
        /// Serve Prometheus metrics at http://ADDRESS:PORT/metrics; a port alone means 127.0.0.1
        #[arg(long, value_name = "ADDRESS:PORT", value_parser = metrics_address)]
        metrics: Option<SocketAddr>,
        /// A host name, besides the address, that scrapes may use; requests for other names are refused
        #[arg(long, value_name = "NAME", requires = "metrics")]
        metrics_host: Vec<String>,
    },
    /// Load the last good rules, without AWS or DNS; for boot
    #[command(after_help = "Examples:\n  cachenat restore")]
    Restore,
    /// List the ports and their nodes, or release a removed node's port
    #[command(after_help = "Examples:\n  cachenat leases\n  cachenat leases release my-cluster-004")]
    Leases {
        #[command(subcommand)]
        action: Option<LeasesAction>,
    },
    /// Print the active forwards, by listener; changes nothing
    #[command(after_help = "Examples:\n  cachenat status\n  cachenat status --format json\n  \
                      cachenat status --format prometheus | sponge /var/lib/node_exporter/cachenat.prom")]
    Status {
        /// prometheus: for node_exporter's textfile collector
        #[arg(long, value_enum, default_value_t)]
        format: StatusFormat,
    },
    /// Check everything that a client's packet needs on its way, and suggest fixes; changes nothing. Exit code 1: a problem was found
    #[command(after_help = "Examples:\n  cachenat check\n  cachenat check --json")]
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what clients need to reach the nodes from outside; changes nothing, needs no privilege
    #[command(
        after_help = "Examples:\n  cachenat endpoints\n  cachenat endpoints --format ioredis --cluster my-cluster\n  \
                      cachenat endpoints --format json > endpoints.json"
    )]
    Endpoints {
        /// table: for people; json: for programs; others: code or settings for that client
        #[arg(long, value_enum, default_value_t)]
        format: clients::Format,
        /// Print only this cache
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Test from a client whether each port is reachable and leads to the right node. Exit code 1: a port failed
    #[command(
        after_help = "Examples:\n  cachenat probe endpoints.json      (of 'cachenat endpoints --format json')\n  \
                      cachenat probe 203.0.113.73:6379-6381\n  cachenat probe nat.example:6379 --tls"
    )]
    Probe {
        /// A file from 'cachenat endpoints --format json', - for standard input, or ports to test
        #[arg(value_name = "FILE|HOST:PORTS")]
        whom: String,
        /// Use TLS; a file already says which ports need it
        #[arg(long)]
        tls: bool,
        /// Trust these certificate authorities instead of the system's
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
        /// How long to wait for each port
        #[arg(long, value_name = "DURATION", default_value = "3s")]
        timeout: Span<1, 3600>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the manual page, or write the pages of all commands into a directory
    #[command(after_help = "Examples:\n  cachenat man | man -l -\n  cachenat man /usr/share/man/man1")]
    Man {
        /// The directory
        dir: Option<PathBuf>,
    },
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  cachenat completions bash > /usr/share/bash-completion/completions/cachenat"
    )]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Remove the table and the sysctl drop-in, and restore the kernel settings; 'cachenat apply' starts again
    #[command(after_help = "Examples:\n  cachenat remove")]
    Remove,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeasesAction {
    /// List all assigned ports, including those of removed nodes
    #[command(after_help = "Examples:\n  cachenat leases list")]
    List,
    /// Make a removed node's port available before its 7 days are over
    #[command(
        after_help = "Examples:\n  cachenat leases release my-cluster-004\n  cachenat leases release --resting"
    )]
    Release {
        /// The removed node's id
        #[arg(required_unless_present = "resting")]
        id: Option<ForwardId>,
        /// Release the port of every removed node
        #[arg(long, conflicts_with = "id")]
        resting: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum RenderFormat {
    #[default]
    Nft,
    IptablesRestore,
    Json,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum DiffFormat {
    #[default]
    Text,
    Json,
    Markdown,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum StatusFormat {
    #[default]
    Text,
    Json,
    Prometheus,
}

/// Parses `127.0.0.1:9379` or `[::1]:9379`; a port alone means loopback, so other addresses must be given explicitly.
fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    let of_loopback = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    text.parse::<u16>()
        .map(of_loopback)
        .or_else(|_| text.parse::<SocketAddr>())
        .map_err(|_| "write an address and a port, such as 127.0.0.1:9379".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("cachenat {}", sub.get_name())), "{}", sub.get_name());
        }
    }

    #[test]
    fn the_version_names_the_build_target() {
        assert!(
            LONG_VERSION.starts_with(env!("CARGO_PKG_VERSION"))
                && LONG_VERSION.contains(std::env::consts::ARCH)
        );
    }

    #[test]
    fn metrics_default_to_loopback() {
        let address = |text| metrics_address(text).map(|address| address.to_string());
        assert_eq!(address("9379").as_deref(), Ok("127.0.0.1:9379"));
        assert_eq!(address("10.0.0.55:9379").as_deref(), Ok("10.0.0.55:9379"));
        for bad in ["", ":9379", "localhost:9379", "70000", "127.0.0.1"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn invalid_times_are_usage_errors() {
        for line in [
            "watch --interval 0s",
            "watch --dns-interval 0",
            "watch --interval 9223372036854775807",
            "apply --wait 9223372036854775807",
            "probe host:6379 --timeout 0s",
        ] {
            let words = ["cachenat"].into_iter().chain(line.split(' '));
            let error = Cli::try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains("write a time from"), "{line}: {error}");
        }
    }
}
