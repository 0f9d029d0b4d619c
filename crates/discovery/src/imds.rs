//! What the instance knows about itself, by IMDSv2 alone.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use aws_config::{imds::Client, provider_config::ProviderConfig};
use futures_util::future::{join, join_all};
use ipnet::IpNet;
use tokio::{sync::OnceCell, time::timeout};

/// Off EC2 nothing answers, and nobody should wait longer than this to learn it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The instance metadata service, asked when someone wants to know, and then once.
///
/// `AWS_EC2_METADATA_DISABLED=true` keeps it from being asked; `AWS_EC2_METADATA_SERVICE_ENDPOINT` moves it.
#[derive(Clone, Default)]
pub struct Imds {
    place: Place,
    facts: Arc<OnceCell<Option<InstanceFacts>>>,
}

/// Where the service is.
#[derive(Clone, Debug, Default)]
enum Place {
    /// Where the environment says, else at its link-local address.
    #[default]
    Usual,
    /// Nowhere.
    Off,
    /// At this URL.
    At(String),
}

/// The instance's primary network interface and place; what it does not tell is empty.
///
/// Source: the categories of instance metadata in the EC2 user guide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// `placement/region`.
    pub region: Option<String>,
    /// `mac` of the primary interface.
    pub mac: Option<String>,
    /// `local-ipv4`: the primary private address.
    pub local_ipv4: Option<Ipv4Addr>,
    /// `public-ipv4`: the Elastic IP, or the address given at launch.
    pub public_ipv4: Option<Ipv4Addr>,
    /// `local-ipv4s` of the primary interface, the primary address first.
    pub local_ipv4s: Vec<Ipv4Addr>,
    /// `public-ipv4s` of the primary interface.
    pub public_ipv4s: Vec<Ipv4Addr>,
    /// `ipv4-associations` of the primary interface: by private address the public one that is translated to it.
    pub associations: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// `ipv6s` of the primary interface.
    pub ipv6s: Vec<Ipv6Addr>,
    /// `vpc-id`.
    pub vpc_id: Option<String>,
    /// `subnet-id`.
    pub subnet_id: Option<String>,
    /// `vpc-ipv4-cidr-blocks` and `vpc-ipv6-cidr-blocks`.
    pub vpc_cidrs: Vec<IpNet>,
}

impl InstanceFacts {
    /// Every address of the primary interface.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        let v4 = self.local_ipv4.iter().chain(&self.local_ipv4s).copied().map(IpAddr::V4);
        let mut own: Vec<IpAddr> = v4.chain(self.ipv6s.iter().copied().map(IpAddr::V6)).collect();
        own.sort();
        own.dedup();
        own
    }

    /// The public address that leads to a private one of the primary interface.
    pub fn public_address_of(&self, private: Ipv4Addr) -> Option<Ipv4Addr> {
        let primary = || self.public_ipv4.filter(|_| self.local_ipv4 == Some(private));
        self.associations.get(&private).copied().or_else(primary)
    }
}

impl Imds {
    /// A service that is not there.
    pub fn off() -> Self {
        Self { place: Place::Off, ..Self::default() }
    }

    /// The service at another URL than the usual; asking panics if it is none.
    pub fn at(url: impl Into<String>) -> Self {
        Self { place: Place::At(url.into()), ..Self::default() }
    }

    /// The instance's facts; none where there is no IMDSv2 within a second, which is no error.
    pub async fn facts(&self) -> Option<&InstanceFacts> {
        let facts = self.facts.get_or_init(|| async {
            match self.is_off() {
                true => None,
                false => timeout(PATIENCE, ask(&self.client())).await.ok().flatten(),
            }
        });
        facts.await.as_ref()
    }

    /// The facts that an earlier question brought; nothing is asked.
    pub fn known(&self) -> Option<&InstanceFacts> {
        self.facts.get()?.as_ref()
    }

    /// One try, one second, no TLS: the service speaks plain HTTP on a link-local address.
    pub(crate) fn client(&self) -> Client {
        let http = aws_smithy_http_client::Builder::new().build_http();
        let mut client = Client::builder()
            .configure(&ProviderConfig::without_region().with_http_client(http))
            .max_attempts(1)
            .connect_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            .operation_timeout(PATIENCE);
        let elsewhere = match &self.place {
            Place::Usual => None,
            // The discard port refuses at once, and the real service is not reached.
            Place::Off => Some("http://127.0.0.1:9"),
            Place::At(url) => Some(url.as_str()),
        };
        if let Some(url) = elsewhere {
            client = client.endpoint(url).expect("the caller of `at` gave a URL");
        }
        client.build()
    }

    fn is_off(&self) -> bool {
        let disabled = || {
            std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"))
        };
        match self.place {
            Place::Off => true,
            Place::At(_) => false,
            Place::Usual => disabled(),
        }
    }
}

impl fmt::Debug for Imds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imds").field("facts", &self.facts.get()).finish()
    }
}

/// What the instance knows about itself: [`Imds::facts`] for one question.
pub async fn instance_facts() -> Option<InstanceFacts> {
    Imds::default().facts().await.cloned()
}

async fn ask(client: &Client) -> Option<InstanceFacts> {
    // The first answer decides whether there is a service at all.
    let mac = get(client, "mac").await?;
    let mac = mac.as_str();
    let interface = format!("network/interfaces/macs/{mac}");
    let paths = [
        "local-ipv4s",
        "public-ipv4s",
        "ipv6s",
        "vpc-id",
        "subnet-id",
        "vpc-ipv4-cidr-blocks",
        "vpc-ipv6-cidr-blocks",
    ]
    .map(|leaf| format!("{interface}/{leaf}"));
    let instance = join_all(["placement/region", "local-ipv4", "public-ipv4"].map(|path| get(client, path)));
    let interface = join_all(paths.iter().map(|path| get(client, path)));
    let (instance, interface) = join(instance, interface).await;

    let [region, local_ipv4, public_ipv4] = instance.try_into().ok()?;
    let [local, public, ipv6s, vpc_id, subnet_id, v4_blocks, v6_blocks] = interface.try_into().ok()?;
    let public_ipv4s: Vec<Ipv4Addr> = lines(public);
    // One answer per public address: which private ones it leads to.
    let associations = join_all(public_ipv4s.iter().map(|public| async move {
        let path = format!("network/interfaces/macs/{mac}/ipv4-associations/{public}");
        lines::<Ipv4Addr>(get(client, &path).await).into_iter().map(|private| (private, *public))
    }));
    let associations = associations.await.into_iter().flatten().collect();
    let mut vpc_cidrs: Vec<IpNet> = lines(v4_blocks);
    vpc_cidrs.extend(lines::<IpNet>(v6_blocks));
    Some(InstanceFacts {
        region: region.filter(|region| is_word(region)),
        mac: Some(mac.to_owned()),
        local_ipv4: lines(local_ipv4).first().copied(),
        public_ipv4: lines(public_ipv4).first().copied(),
        local_ipv4s: lines(local),
        public_ipv4s,
        associations,
        ipv6s: lines(ipv6s),
        vpc_id: vpc_id.filter(|id| is_word(id)),
        subnet_id: subnet_id.filter(|id| is_word(id)),
        vpc_cidrs,
    })
}

/// One category; none where the service has none (404) or fails.
async fn get(client: &Client, path: &str) -> Option<String> {
    let answer = client.get(format!("/latest/meta-data/{path}")).await.ok()?;
    Some(answer.as_ref().trim().to_owned())
}

/// Each line that is what it should be.
fn lines<T: FromStr>(answer: Option<String>) -> Vec<T> {
    answer.iter().flat_map(|answer| answer.lines()).filter_map(|line| line.trim().parse().ok()).collect()
}

/// Letters, digits and hyphens: what regions and ids are made of, and what is safe to print.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
