//! The tables of legacy iptables, which nf_tables does not show.
//!
//! Reads them as `iptables-legacy-save` does, with `getsockopt` of `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`
//! (`linux/netfilter_ipv4/ip_tables.h`, `linux/netfilter_ipv6/ip6_tables.h`). Reads only tables that are already loaded,
//! because the request itself would load a table.

mod entries;
mod socket;

use std::fs;
use std::io;
use std::path::Path;

use rules::Family;
use rules::foreign::{Backend, Chain, Table, TableFamily};

use socket::Socket;

/// The chains of all loaded tables in this network namespace, for both families; empty without legacy iptables.
///
/// # Errors
///
/// If the kernel refuses: reading needs `CAP_NET_ADMIN`.
pub fn chains() -> io::Result<Vec<Chain>> {
    let mut found = Vec::new();
    for (family, of, file) in [
        (Family::Ipv4, TableFamily::Ip, "ip_tables_names"),
        (Family::Ipv6, TableFamily::Ip6, "ip6_tables_names"),
    ] {
        // Only root may read this file; it does not exist without the module.
        let names = fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).unwrap_or_default();
        for name in names.lines() {
            let (info, entries) = Socket::open(family)?.table(name)?;
            let table =
                Table { backend: Backend::LegacyIptables, family: of, name: name.escape_debug().to_string() };
            let chains = entries::chains(&table, family, &info, &entries);
            found.extend(chains.ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("table {table} has an unknown layout"))
            })?);
        }
    }
    Ok(found)
}
