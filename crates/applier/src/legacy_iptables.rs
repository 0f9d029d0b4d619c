//! The tables of legacy iptables, which stand beside nf_tables and of which it knows nothing.
//!
//! They are read as `iptables-legacy-save` reads them, by `getsockopt` of `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`
//! (`linux/netfilter_ipv4/ip_tables.h`, `linux/netfilter_ipv6/ip6_tables.h`). Only tables that have been loaded are asked for,
//! as asking loads them.

mod entries;
mod socket;

use std::fs;
use std::io;
use std::path::Path;

use rules::Family;
use rules::foreign::{Backend, Chain, Table, TableFamily};

use socket::Socket;

/// The chains of all tables that have been loaded in this network namespace, for either family; none without legacy
/// iptables.
///
/// # Errors
///
/// If the kernel does not show them: it takes `CAP_NET_ADMIN`.
pub fn chains() -> io::Result<Vec<Chain>> {
    let mut found = Vec::new();
    for (family, of, file) in [
        (Family::Ipv4, TableFamily::Ip, "ip_tables_names"),
        (Family::Ipv6, TableFamily::Ip6, "ip6_tables_names"),
    ] {
        // Only root may read it; without the module there is none.
        let names = fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).unwrap_or_default();
        for name in names.lines() {
            let (info, entries) = Socket::open(family)?.table(name)?;
            let table =
                Table { backend: Backend::LegacyIptables, family: of, name: name.escape_debug().to_string() };
            let chains = entries::chains(&table, family, &info, &entries);
            found.extend(chains.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("table {table} is not laid out as it should be"),
                )
            })?);
        }
    }
    Ok(found)
}
