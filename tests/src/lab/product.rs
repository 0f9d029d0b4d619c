//! cachenat itself, run on the NAT instance as an operator would.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Command, Output};

use super::Lab;
use super::cache::{Cache, Kind};
use super::network::{CLIENT, PUBLIC};
use crate::programs;

/// Where the fake ElastiCache API listens, on the NAT instance's loopback.
pub(super) const API: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4566);

/// The result of one run of cachenat.
#[derive(Debug)]
pub struct Run {
    /// Its exit code.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Messages.
    pub stderr: String,
}

impl Run {
    /// Asserts the exit code.
    ///
    /// # Panics
    ///
    /// If the exit code differs; the message contains all output.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Its stdout as JSON.
    ///
    /// # Panics
    ///
    /// If it is not.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl Run {
    /// A run that may have been killed, or may have printed no UTF-8; its code is that of a shell then.
    pub fn from_lossy(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("cachenat prints UTF-8");
        let code = output.status.code().expect("cachenat was not killed");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Lab {
    /// Runs `cachenat ARGS` to its end.
    pub fn cachenat(&self, args: &[&str]) -> Run {
        let output = self.cachenat_command().args(args).output();
        output.expect("nsenter is part of util-linux").into()
    }

    /// A cachenat command without arguments.
    pub fn cachenat_command(&self) -> Command {
        self.operator_command(programs::cachenat())
    }

    /// A program as an operator runs it on the NAT instance: with the lab's config, API and DNS, and without access to the
    /// real ones.
    pub fn operator_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.network.nat.command("unshare");
        // A resolver reads /etc/resolv.conf; a mount namespace gives this one process another.
        command.args(["--mount", "--", "sh", "-c", r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#]);
        command.arg(self.resolv_conf()).arg(program);
        command.env("CACHENAT_CONFIG", self.config());
        command.envs(aws_environment());
        command.env_remove("AWS_PROFILE");
        command
    }

    /// The config file.
    pub fn config(&self) -> PathBuf {
        self.dir().join("config.yaml")
    }

    /// Writes the config: `text`, and the paths that keep the lab's cachenat apart from any other.
    pub fn write_config(&self, text: &str) {
        let dir = self.dir().display();
        let paths = format!(
            "state_dir: {dir}/state\n\
             sysctl_dir: {dir}/sysctl.d\n\
             lock_file: {dir}/cachenat.lock\n"
        );
        fs::write(self.config(), format!("{text}{paths}")).expect("the lab's directory is writable");
    }

    /// The config that a new lab has: the client may reach every node of every cache.
    pub fn plain_config(&self) -> String {
        let sources: String = self.caches.iter().map(source).collect();
        format!(
            "clients: [{CLIENT}/32]\n\
             gateway: {{public_address: {PUBLIC}}}\n\
             sources:\n{sources}"
        )
    }

    pub(super) fn resolv_conf(&self) -> PathBuf {
        self.dir().join("resolv.conf")
    }
}

/// The environment that points the AWS SDK only to the lab's API.
pub fn aws_environment() -> [(&'static str, String); 5] {
    [
        ("AWS_ENDPOINT_URL", format!("http://{API}")),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_REGION", "us-east-2".to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "not-a-secret".to_owned()),
    ]
}

fn source(cache: &Cache) -> String {
    let kind = match cache.kind {
        Kind::ReplicationGroup | Kind::Cluster | Kind::TlsCluster => "replication_group",
        Kind::Memcached => "cache_cluster",
    };
    format!("  - {kind}: {}\n", cache.name)
}
