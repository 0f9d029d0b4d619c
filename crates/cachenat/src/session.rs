//! The SSH session that a command runs in.

use std::env;
use std::fs;
use std::net::IpAddr;

use applier::host;
use applier::host_facts::source_towards;
use rules::IfName;

/// The interface by which the operator's own SSH session comes in, if the command runs in one.
///
/// sudo(8) keeps `SSH_CONNECTION` from the command, but not from the processes above it.
pub(crate) fn interface() -> Option<IfName> {
    let variable = "SSH_CONNECTION";
    let connection = env::var(variable).ok().or_else(|| {
        let parents = std::iter::successors(parent("self"), |pid| parent(pid));
        parents.take_while(|pid| pid != "0").find_map(|pid| variable_of(&pid, variable))
    })?;
    interface_of(&connection)
}

/// The same of `CLIENT PORT SERVER PORT` (ssh(1)): where the answers to the client leave.
fn interface_of(connection: &str) -> Option<IfName> {
    let client: IpAddr = connection.split_whitespace().next()?.parse().ok()?;
    let source = source_towards(client)?;
    let addresses = host::addresses().ok()?;
    let local = addresses.into_iter().find(|local| local.address == source)?;
    local.interface.parse().ok()
}

fn parent(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")).map(|pid| pid.trim().to_owned())
}

fn variable_of(pid: &str, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let entries = environment.split(|&byte| byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    entries
        .filter_map(|entry| entry.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_a_process_above_is_read() {
        let own = std::process::id().to_string();
        assert_eq!(variable_of(&own, "PATH"), env::var("PATH").ok());
        assert!(parent(&own).is_some());
        assert_eq!(
            interface_of("127.0.0.1 50000 127.0.0.1 22").map(|name| name.to_string()).as_deref(),
            Some("lo")
        );
        assert_eq!(interface_of("nonsense"), None);
    }
}
