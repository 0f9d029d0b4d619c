//! The certificates of caches with in-transit encryption. Each has its node's name and that of the configuration
//! endpoint, but no other node's; ElastiCache is less strict.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::shell::run;

/// The path of the authority's certificate, which clients must trust.
pub fn authority(lab: &Path) -> PathBuf {
    lab.join("ca.pem")
}

/// Creates the lab's certificate authority.
pub(super) fn make_authority(lab: &Path) {
    run(openssl(lab).args(["-subj", "/CN=lab", "-keyout", "ca.key", "-out", "ca.pem"]));
}

/// Gives the node with files in `dir` a certificate for its name and the cluster's, and returns redis-server's options:
/// TLS on port 6379 for clients, and a plain port for the lab.
pub(super) fn options(lab: &Path, dir: &Path, name: &str, cluster: &str) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let (certificate, key, ca) = (file("cert.pem"), file("key.pem"), authority(lab).display().to_string());
    let mut signed = openssl(lab);
    signed.args(["-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=node"]);
    signed.args([
        "-addext",
        &format!("subjectAltName=DNS:{name},DNS:{cluster}"),
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
    run(signed.args(["-keyout", &key, "-out", &certificate]));
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it was just made");
    let words = [
        ["--tls-port", "6379"],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &ca],
        ["--tls-auth-clients", "no"],
        ["--tls-cluster", "yes"],
        ["--tls-replication", "yes"],
        ["--cluster-announce-hostname", name],
        ["--cluster-preferred-endpoint-type", "hostname"],
    ];
    words.concat().into_iter().map(str::to_owned).collect()
}

fn openssl(dir: &Path) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2"]).current_dir(dir);
    openssl
}
