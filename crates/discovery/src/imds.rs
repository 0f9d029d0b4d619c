//! What the instance knows about itself, by IMDSv2 alone.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use aws_config::{
    imds::{Client, client::error::ImdsError},
    provider_config::ProviderConfig,
};
use futures_util::future::join_all;
use ipnet::IpNet;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tracing::debug;

use crate::{
    admission::is_credible,
    bounded::{Limits, plain_http},
};

/// Off EC2 nothing answers, and nobody should wait longer than this to learn it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How soon a service that was silent, or answered in part, is asked again.
const ABSENCE: Duration = Duration::from_secs(10);

/// A document of credentials or of a user's own has at most 16 KiB.
const LIMITS: Limits = Limits { bytes: 256 << 10, elements: usize::MAX };

/// The most lines of one category; an interface has at most 50 addresses, and a VPC 50 ranges (VPC quotas).
const MAX_LINES: usize = 256;

/// How long an answer is good: a VPC gains ranges and an instance addresses while we run.
const FRESHNESS: Duration = Duration::from_secs(300);

/// The instance metadata service, asked when someone wants to know. What it said is remembered, its silence is for 10 s at
/// most.
///
/// `AWS_EC2_METADATA_DISABLED=true` keeps it from being asked; `AWS_EC2_METADATA_SERVICE_ENDPOINT` moves it.
#[derive(Clone, Default)]
pub struct Imds {
    place: ImdsEndpoint,
    absence: Option<Duration>,
    memory: Arc<Mutex<CachedFacts>>,
}

/// What the service said, and when it is to be asked again.
#[derive(Debug, Default)]
struct CachedFacts {
    /// By category; `None` is an answer too: the instance has none (404).
    answers: Answers,
    facts: Option<Arc<InstanceFacts>>,
    due: Option<Instant>,
}

type Answers = BTreeMap<String, Option<String>>;

impl CachedFacts {
    /// Takes note of what was answered. What was not is as it was, and is asked again after `absence`.
    fn note(&mut self, heard: Heard, now: Instant, absence: Duration) {
        self.answers.extend(heard.answers);
        self.facts = understood(&self.answers).map(Arc::new);
        self.due = Some(now + if heard.is_whole { FRESHNESS } else { absence });
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

/// What came of asking.
#[derive(Debug, Default)]
struct Heard {
    answers: Answers,
    /// Whether every category was answered.
    is_whole: bool,
}

/// Where the service is.
#[derive(Clone, Debug, Default)]
enum ImdsEndpoint {
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

    /// Ranges of [`InstanceFacts::vpc_cidrs`] that are larger than AWS allows, and are not believed.
    pub fn incredible_ranges(&self) -> impl Iterator<Item = &IpNet> {
        self.vpc_cidrs.iter().filter(|range| !is_credible(range))
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
        Self { place: ImdsEndpoint::Off, ..Self::default() }
    }

    /// The service at another URL than the usual; asking panics if it is none.
    pub fn at(url: impl Into<String>) -> Self {
        Self { place: ImdsEndpoint::At(url.into()), ..Self::default() }
    }

    /// The same service, asked again this soon after it was silent.
    #[must_use]
    pub fn asked_again_after(self, absence: Duration) -> Self {
        Self { absence: Some(absence), ..self }
    }

    /// The instance's facts; none where there is no IMDSv2 within a second, which is no error.
    pub async fn facts(&self) -> Option<Arc<InstanceFacts>> {
        if self.is_off() {
            return None;
        }
        // Held while it is asked, so that others wait for the answer instead of asking as well.
        let mut memory = self.memory.lock().await;
        if memory.is_due(Instant::now()) {
            let heard = ask(&self.client()).await;
            memory.note(heard, Instant::now(), self.absence.unwrap_or(ABSENCE));
        }
        memory.facts.clone()
    }

    /// The facts that an earlier question brought; nothing is asked.
    pub fn known(&self) -> Option<Arc<InstanceFacts>> {
        self.memory.try_lock().ok()?.facts.clone()
    }

    /// One try, one second, no TLS: the service speaks plain HTTP on a link-local address.
    pub(crate) fn client(&self) -> Client {
        let http = plain_http(LIMITS);
        let mut client = Client::builder()
            .configure(&ProviderConfig::without_region().with_http_client(http))
            .max_attempts(1)
            .connect_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            .operation_timeout(PATIENCE);
        let elsewhere = match &self.place {
            ImdsEndpoint::Usual => None,
            // The discard port refuses at once, and the real service is not reached.
            ImdsEndpoint::Off => Some("http://127.0.0.1:9"),
            ImdsEndpoint::At(url) => Some(url.as_str()),
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
            ImdsEndpoint::Off => true,
            ImdsEndpoint::At(_) => false,
            ImdsEndpoint::Usual => disabled(),
        }
    }
}

impl fmt::Debug for Imds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imds").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What the instance knows about itself: [`Imds::facts`] for one question.
pub async fn instance_facts() -> Option<InstanceFacts> {
    Imds::default().facts().await.map(Arc::unwrap_or_clone)
}

/// The categories of the instance, and those of its primary interface.
const OF_INSTANCE: [&str; 3] = ["placement/region", "local-ipv4", "public-ipv4"];
const OF_INTERFACE: [&str; 7] = [
    "local-ipv4s",
    "public-ipv4s",
    "ipv6s",
    "vpc-id",
    "subnet-id",
    "vpc-ipv4-cidr-blocks",
    "vpc-ipv6-cidr-blocks",
];

async fn ask(client: &Client) -> Heard {
    let deadline = Instant::now() + PATIENCE;
    let get = |path: String| async move { (get(client, &path, deadline).await, path) };
    let mut heard = Heard { is_whole: true, ..Heard::default() };
    // The first answer decides whether there is a service at all.
    heard.take([get("mac".to_owned()).await]);
    let mac = heard.answers.get("mac").cloned().flatten();
    // It becomes part of a URL.
    let is_mac = |mac: &String| mac.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    let Some(mac) = mac.filter(is_mac) else { return Heard::default() };
    let paths = OF_INSTANCE.map(str::to_owned).into_iter();
    let paths = paths.chain(OF_INTERFACE.map(|leaf| interface(&mac, leaf)));
    heard.take(join_all(paths.map(get)).await);
    // One answer per public address: which private ones it leads to.
    let public: Vec<Ipv4Addr> = lines(heard.answers.get(&interface(&mac, "public-ipv4s")));
    heard.take(join_all(public.iter().map(|public| get(association(&mac, *public)))).await);
    heard
}

impl Heard {
    fn take(&mut self, answers: impl IntoIterator<Item = (Result<Option<String>, Unanswered>, String)>) {
        for (answer, path) in answers {
            match answer {
                Ok(answer) => drop(self.answers.insert(path, answer)),
                Err(Unanswered) => self.is_whole = false,
            }
        }
    }
}

/// No answer in time, or one that says nothing of the category.
struct Unanswered;

/// One category; none where the service says that there is none (404).
async fn get(client: &Client, path: &str, deadline: Instant) -> Result<Option<String>, Unanswered> {
    match timeout_at(deadline, client.get(format!("/latest/meta-data/{path}"))).await {
        Ok(Ok(answer)) => {
            let text = answer.as_ref().trim();
            debug!("IMDS {path}: {text:?}");
            Ok(Some(text.to_owned()))
        }
        Ok(Err(ImdsError::ErrorResponse(error))) if error.response().status().as_u16() == 404 => {
            debug!("IMDS {path}: there is none");
            Ok(None)
        }
        Ok(Err(error)) => {
            debug!("IMDS {path}: {error}");
            Err(Unanswered)
        }
        Err(_) => {
            debug!("IMDS {path}: no answer in time");
            Err(Unanswered)
        }
    }
}

fn interface(mac: &str, leaf: &str) -> String {
    format!("network/interfaces/macs/{mac}/{leaf}")
}

fn association(mac: &str, public: Ipv4Addr) -> String {
    interface(mac, &format!("ipv4-associations/{public}"))
}

/// The facts that the answers hold; none without the primary interface.
fn understood(answers: &Answers) -> Option<InstanceFacts> {
    let mac = answers.get("mac")?.clone()?;
    let of_interface = |leaf: &str| answers.get(&interface(&mac, leaf));
    let word = |answer: Option<&Option<String>>| answer?.clone().filter(|text| is_word(text));
    let public_ipv4s: Vec<Ipv4Addr> = lines(of_interface("public-ipv4s"));
    let associations = public_ipv4s.iter().flat_map(|&public| {
        let private = lines::<Ipv4Addr>(answers.get(&association(&mac, public)));
        private.into_iter().map(move |private| (private, public))
    });
    let mut vpc_cidrs: Vec<IpNet> = lines(of_interface("vpc-ipv4-cidr-blocks"));
    vpc_cidrs.extend(lines::<IpNet>(of_interface("vpc-ipv6-cidr-blocks")));
    Some(InstanceFacts {
        region: word(answers.get("placement/region")),
        local_ipv4: lines(answers.get("local-ipv4")).first().copied(),
        public_ipv4: lines(answers.get("public-ipv4")).first().copied(),
        local_ipv4s: lines(of_interface("local-ipv4s")),
        associations: associations.collect(),
        ipv6s: lines(of_interface("ipv6s")),
        vpc_id: word(of_interface("vpc-id")),
        subnet_id: word(of_interface("subnet-id")),
        public_ipv4s,
        vpc_cidrs,
        mac: Some(mac),
    })
}

/// Each line that is what it should be.
fn lines<T: FromStr>(answer: Option<&Option<String>>) -> Vec<T> {
    let answer = answer.and_then(Option::as_deref).unwrap_or_default();
    answer.lines().take(MAX_LINES).filter_map(|line| line.trim().parse().ok()).collect()
}

/// Letters, digits and hyphens: what regions and ids are made of, and what is safe to print.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_secs(5);

    /// Answers of these categories, and silence about the others.
    fn half(answers: &[(&str, &str)]) -> Heard {
        let answer = |&(path, text): &(&str, &str)| (path.to_owned(), Some(text.to_owned()));
        Heard { answers: answers.iter().map(answer).collect(), is_whole: false }
    }

    fn whole(answers: &[(&str, &str)]) -> Heard {
        Heard { is_whole: true, ..half(answers) }
    }

    fn region(memory: &CachedFacts) -> Option<&str> {
        memory.facts.as_ref()?.region.as_deref()
    }

    #[test]
    fn silence_is_remembered_for_a_moment_only() {
        let (mut memory, now) = (CachedFacts::default(), Instant::now());
        assert!(memory.is_due(now));
        memory.note(Heard::default(), now, ABSENCE);
        assert_eq!((memory.is_due(now + HALF), memory.is_due(now + ABSENCE)), (false, true));
    }

    #[test]
    fn an_answer_outlives_later_silence() {
        let (mut memory, now) = (CachedFacts::default(), Instant::now());
        memory.note(whole(&[("mac", "02:00"), ("placement/region", "us-east-2")]), now, ABSENCE);
        assert_eq!((memory.is_due(now + ABSENCE), memory.is_due(now + FRESHNESS)), (false, true));
        memory.note(Heard::default(), now, ABSENCE);
        memory.note(half(&[("mac", "02:00")]), now, ABSENCE);
        assert_eq!((region(&memory), memory.is_due(now + ABSENCE)), (Some("us-east-2"), true));
        memory.note(whole(&[("placement/region", "us-west-1")]), now, ABSENCE);
        assert_eq!(region(&memory), Some("us-west-1"));
    }

    #[test]
    fn half_an_answer_is_used_and_completed() {
        let (mut memory, now) = (CachedFacts::default(), Instant::now());
        memory.note(half(&[("mac", "02:00"), ("local-ipv4", "10.0.0.55")]), now, ABSENCE);
        assert_eq!((region(&memory), memory.is_due(now + ABSENCE)), (None, true));
        memory.note(half(&[("mac", "02:00"), ("placement/region", "us-east-2")]), now, ABSENCE);
        let facts = memory.facts.clone().unwrap();
        assert_eq!((region(&memory), facts.local_ipv4), (Some("us-east-2"), Some([10, 0, 0, 55].into())));
    }

    #[test]
    fn an_endless_list_is_cut() {
        let ranges = Some("10.0.0.0/16\n".repeat(100_000));
        assert_eq!(lines::<IpNet>(Some(&ranges)).len(), MAX_LINES);
    }
}
