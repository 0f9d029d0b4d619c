//! Encrypted tunnels into the lab's NAT instance: real WireGuard, wireguard-go where the kernel has none.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::namespace::Namespace;
use super::shell::{run, run_with_input};
use super::wait::wait_for;

/// The gateway's own address in the tunnel.
pub const GATEWAY_IN_TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// The files that users begin with: the gateway's has one peer, 10.99.0.2.
const GATEWAY: &str = include_str!("../../../examples/wireguard/gateway.conf");
const CLIENT: &str = include_str!("../../../examples/wireguard/client.conf");

/// A key pair, as wg(8) writes it.
struct Keys {
    private: String,
    public: String,
}

impl Keys {
    fn new() -> Self {
        let private = run(Command::new("wg").arg("genkey")).trim().to_owned();
        let public = run_with_input(Command::new("wg").arg("pubkey"), &private).trim().to_owned();
        Self { private, public }
    }
}

/// The interface `wg0` of one host, which ends with its value.
#[derive(Debug)]
struct Interface {
    child: Child,
}

impl Interface {
    /// Starts `wg0` in `host` with that configuration (wg-quick(8)) and address, and waits until it is up.
    fn start(host: &Namespace, dir: &Path, name: &str, config: &str, address: Ipv4Addr) -> Self {
        let file = dir.join(format!("{name}.conf"));
        fs::write(&file, config).expect("the lab's directory is writable");
        // wireguard-go is spoken to by a socket below /var/run: each host has one of its own. All of it ends with the first
        // process of its pid namespace.
        let script = r#"
            mkdir -p /var/run/wireguard && mount -t tmpfs none /var/run/wireguard
            wireguard-go -f wg0 &
            until wg-quick strip "$0" | wg setconf wg0 /dev/stdin 2>/dev/null; do sleep 0.05; done
            ip address add "$1/24" dev wg0 && ip link set wg0 up
            wait
        "#;
        let mut command = host.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]).arg(&file);
        command.arg(address.to_string());
        command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let interface = Self { child: child.expect("unshare is part of util-linux") };
        let is_up = || {
            let mut ip = host.command("ip");
            let shown = ip.args(["address", "show", "dev", "wg0", "up"]).output().ok()?;
            String::from_utf8_lossy(&shown.stdout).contains(&address.to_string()).then_some(())
        };
        wait_for("wg0 to be up", is_up);
        interface
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tunnel from each of some hosts on the internet to the NAT instance.
#[derive(Debug)]
pub struct Tunnels {
    _interfaces: Vec<Interface>,
}

impl Tunnels {
    /// Brings up `wg0` on the NAT instance and on each of `peers`, `(host, address in the tunnel)`; they lead the gateway's
    /// private address and the nodes' subnet through it.
    pub fn start(nat: &Namespace, dir: &Path, peers: &[(&Namespace, Ipv4Addr)]) -> Self {
        let own = Keys::new();
        let keys: Vec<Keys> = peers.iter().map(|_| Keys::new()).collect();
        let mut config = GATEWAY.replace("THE_GATEWAYS_PRIVATE_KEY", &own.private);
        for (at, (keys, (_, address))) in keys.iter().zip(peers).enumerate() {
            match at {
                0 => config = config.replace("A_CLIENTS_PUBLIC_KEY", &keys.public),
                _ => config
                    .push_str(&format!("[Peer]\nPublicKey = {}\nAllowedIPs = {address}/32\n", keys.public)),
            }
        }
        let mut interfaces = vec![Interface::start(nat, dir, "gateway", &config, GATEWAY_IN_TUNNEL)];
        for (at, (keys, (host, address))) in keys.iter().zip(peers).enumerate() {
            let config = CLIENT
                .replace("YOUR_PRIVATE_KEY", &keys.private)
                .replace("THE_GATEWAYS_PUBLIC_KEY", &own.public)
                .replace("AllowedIPs = ", "AllowedIPs = 10.99.0.1/32, 10.0.0.0/16, ");
            interfaces.push(Interface::start(host, dir, &format!("peer{at}"), &config, *address));
            host.ip("route add 10.0.0.0/16 dev wg0");
        }
        Self { _interfaces: interfaces }
    }
}
