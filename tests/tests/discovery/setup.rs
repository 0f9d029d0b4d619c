//! A fake AWS, a fake name server, and a discovery that sees nothing else.

use std::{collections::BTreeMap, fs, process::Command};

use cachenat_tests::{
    fake_aws::{FakeAws, Scenario, shapes::Group},
    fake_dns::FakeDns,
    lab::namespace::Namespace,
    programs,
};
use discovery::{Credentials, Expose, Imds, Inventory, Node, Options, ResolverSettings, Source};
use tempfile::TempDir;

pub(crate) struct Setup {
    pub(crate) aws: FakeAws,
    pub(crate) dns: FakeDns,
}

impl Setup {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let setup = Self { aws: FakeAws::start(loopback), dns: FakeDns::start(loopback) };
        setup.aws.set(scenario);
        setup
    }

    /// A group whose nodes are at 10.0.1.230, .231, ...
    pub(crate) fn with_group(group: &Group) -> Self {
        let mut scenario = Scenario::default();
        group.add_to(&mut scenario);
        let setup = Self::new(scenario);
        setup.point_members(group);
        setup
    }

    pub(crate) fn point_members(&self, group: &Group) {
        for (index, (_, member)) in group.members().iter().enumerate() {
            self.dns.point(&group.host(member), &format!("10.0.1.{}", 230 + index));
        }
        self.dns.point(&group.primary(), "10.0.1.230");
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            region: Some("us-east-2".into()),
            endpoint: Some(self.aws.url()),
            credentials: Some(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test")),
            imds: Imds::off(),
            resolver: ResolverSettings {
                servers: vec![self.dns.address()],
                timeout: std::time::Duration::from_millis(300),
                ..ResolverSettings::default()
            },
            ..Options::default()
        }
    }

    pub(crate) fn discover(&self, sources: &[Source]) -> Inventory {
        self.discover_with(sources, &self.options())
    }

    pub(crate) fn discover_with(&self, sources: &[Source], options: &Options) -> Inventory {
        block_on(discovery::discover(sources, options))
    }
}

/// A network namespace with both fakes on its loopback, where the program finds them as it would find the real ones.
pub(crate) struct Machine {
    pub(crate) aws: FakeAws,
    pub(crate) dns: FakeDns,
    namespace: Namespace,
    dir: TempDir,
}

impl Machine {
    /// `resolv_conf` is the file's text; the name server is at 127.0.0.1.
    pub(crate) fn new(scenario: Scenario, resolv_conf: &str) -> Self {
        let namespace = Namespace::new();
        let at = |port: u16| ([127, 0, 0, 1], port).into();
        let (aws, dns) = namespace.enter(|| (FakeAws::start(at(0)), FakeDns::start(at(53))));
        aws.set(scenario);
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("resolv.conf"), resolv_conf).unwrap();
        Self { aws, dns, namespace, dir }
    }

    /// `cachenat discover --json` with these sources, in YAML.
    pub(crate) fn discover(&self, sources: &str) -> Inventory {
        let config = self.dir.path().join("config.yaml");
        fs::write(&config, format!("clients: [198.51.100.27/32]\nsources:\n{sources}")).unwrap();
        let mut command: Command = self.namespace.command("unshare");
        // A resolver reads /etc/resolv.conf; a mount namespace gives this one process another.
        command.args(["--mount", "--", "sh", "-c", r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#]);
        command.arg(self.dir.path().join("resolv.conf")).arg(programs::cachenat());
        command.args(["discover", "--json", "--config"]).arg(&config);
        command
            .env("AWS_ENDPOINT_URL", self.aws.url())
            .env("AWS_REGION", "us-east-2")
            .env("HOME", self.dir.path());
        command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret");
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.output().unwrap();
        Inventory::from_json(&String::from_utf8(output.stdout).unwrap())
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn replication_group(id: &str) -> Source {
    Source::ReplicationGroup { id: id.into(), expose: Expose::default() }
}

pub(crate) fn cache_cluster(id: &str) -> Source {
    Source::CacheCluster { id: id.into() }
}

pub(crate) fn serverless_cache(name: &str) -> Source {
    Source::ServerlessCache { name: name.into() }
}

pub(crate) fn tags(pairs: &[(&str, &str)]) -> Source {
    Source::Tags { tags: owned(pairs), expose: Expose::default() }
}

pub(crate) fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// One line for each node and each source, so that one failure shows the whole inventory.
pub(crate) fn show(inventory: &Inventory) -> String {
    let sources = inventory.sources.iter().map(|report| {
        let error = report.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        format!("{} {}{error}\n", report.source, report.outcome)
    });
    inventory.nodes.iter().map(line).chain(sources).collect()
}

fn line(node: &Node) -> String {
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    let word = |word: Option<String>| word.unwrap_or_else(|| "-".into());
    format!(
        "{} {} {} {}{} {} [{}]:{}{}\n",
        node.id,
        word(node.shard.as_ref().map(ToString::to_string)),
        word(node.role.map(|role| role.to_string())),
        word(node.engine.as_ref().map(ToString::to_string)),
        if node.tls { "+tls" } else { "" },
        node.status,
        addresses.join(" "),
        node.port,
        node.error.as_ref().map(|error| format!(" ! {error}")).unwrap_or_default(),
    )
}
