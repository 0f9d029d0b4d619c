//! The ruleset as JSON: what `render --format json` prints and `diff --against` reads.
//!
//! Keys and data are nft text, so a person can read and grep it; `version` is 1 and the shape grows by addition only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::{SmolStr, ToSmolStr as _};

use crate::name::ForwardId;
use crate::ruleset::{
    AddrPort, Chain, Element, Elements, Family, Flowtable, Key, ListIndex, Rule, Ruleset, Set, SetKind,
    SpreadIndex, TABLE,
};
use crate::sysctl::Sysctl;

/// The version of the format.
pub const VERSION: u32 = 1;

/// What is wanted of a kernel: the ruleset and the settings that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredState {
    /// The table.
    pub ruleset: Ruleset,
    /// The kernel settings.
    pub sysctls: Vec<Sysctl>,
}

/// Why a text is no rendered ruleset.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON, or not of this shape; the source tells line and column.
    #[error("not the output of 'cachenat render --format json'")]
    Shape(#[source] serde_json::Error),
    /// It is of a version that this program does not know.
    #[error(
        "format version {found}, this cachenat reads version {VERSION}: render it again with this cachenat"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// A set, chain, key or target that is none of ours.
    #[error("{place}: {text:?} is not known here")]
    Unknown {
        /// Where it stands: `sets.forward4`.
        place: String,
        /// What stands there.
        text: String,
    },
}

/// The document; `R` is how it has its rules.
#[derive(Serialize, Deserialize)]
struct Document<R> {
    version: u32,
    table: String,
    sets: BTreeMap<String, Vec<ElementForm>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flowtable: Option<Flowtable>,
    chains: BTreeMap<String, Vec<R>>,
    sysctls: Vec<Sysctl>,
}

#[derive(Clone, Serialize, Deserialize)]
struct ElementForm {
    key: SmolStr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<SmolStr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<SmolStr>,
}

/// A rule as documents have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum RuleForm {
    Rule(Rule),
    /// Over slots, from before each target had a map: its elements say all of it.
    Slots {
        #[serde(rename = "rule")]
        _rule: SlotsTag,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum SlotsTag {
    Spread,
}

impl From<(&Key, &Element)> for ElementForm {
    fn from((key, element): (&Key, &Element)) -> Self {
        Self {
            key: key.to_smolstr(),
            to: element.data.map(|target| target.to_smolstr()),
            id: element.comment.clone(),
        }
    }
}

impl DesiredState {
    /// The document, on several lines, ending in a newline.
    pub fn to_json(&self) -> String {
        let Ruleset { sets, flowtable, chains } = &self.ruleset;
        let document = Document {
            version: VERSION,
            table: format!("inet {TABLE}"),
            sets: sets
                .iter()
                .map(|(set, e)| (set.name().to_string(), e.iter().map(ElementForm::from).collect()))
                .collect(),
            flowtable: flowtable.clone(),
            chains: by_name(chains),
            sysctls: self.sysctls.clone(),
        };
        // Strings, numbers and maps with string keys: nothing in the document can fail to serialize.
        serde_json::to_string_pretty(&document).map(|json| json + "\n").unwrap_or_default()
    }

    /// The same document in pieces, with each element on a line of its own: a third as long, and quick to write.
    pub fn to_json_pieces(&self) -> impl Iterator<Item = String> + '_ {
        let Ruleset { sets, flowtable, chains } = &self.ruleset;
        let head = format!(r#"{{"version":{VERSION},"table":"inet {TABLE}","sets":{{"#);
        let sets = sets.iter().zip(separators()).flat_map(|((set, elements), before)| {
            let lines = elements.iter().zip(separators());
            let lines = lines.map(|(element, before)| compact(before, &ElementForm::from(element)));
            [format!("{before}\"{set}\":[")].into_iter().chain(lines).chain(["]".to_owned()])
        });
        let flowtable = flowtable.iter().map(|flowtable| compact(",\n\"flowtable\":", flowtable));
        let chains = compact(",\n\"chains\":", &by_name(chains));
        let sysctls = compact(",\n\"sysctls\":", &self.sysctls);
        let sets = [head].into_iter().chain(sets).chain(["}".to_owned()]);
        sets.chain(flowtable).chain([chains, sysctls, "}\n".to_owned()])
    }

    /// Reads a document back.
    ///
    /// # Errors
    ///
    /// [`JsonError`], if it is not JSON, of another version, or speaks of a set, chain, key or target that is none
    /// of ours.
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let parsed = serde_json::from_str::<Document<RuleForm>>(text).map_err(JsonError::Shape);
        // Of another version the shape may be another as well.
        let found = match &parsed {
            Ok(Document { version, .. }) => *version,
            Err(_) => serde_json::from_str(text).map_or(VERSION, |Head { version }| version),
        };
        if found != VERSION {
            return Err(JsonError::Version { found });
        }
        let document = parsed?;
        let unknown = |place: String, text: &str| JsonError::Unknown { place, text: text.to_owned() };
        let mut ruleset = Ruleset { flowtable: document.flowtable, ..Ruleset::default() };
        for (name, forms) in document.sets {
            if let Some(family) = family_of_slots(&name) {
                for (set, key, element) in from_slots(family, forms)? {
                    ruleset.sets.entry(set).or_default().insert(key, element);
                }
                continue;
            }
            let set = Set::from_name(&name).ok_or_else(|| unknown("sets".to_owned(), &name))?;
            let elements: Result<Elements, JsonError> =
                forms.into_iter().map(|form| element(set, form)).collect();
            ruleset.sets.entry(set).or_default().extend(elements?);
        }
        for (name, forms) in document.chains {
            let chain = Chain::from_name(&name).ok_or_else(|| unknown("chains".to_owned(), &name))?;
            let rules = forms.into_iter().filter_map(|form| match form {
                RuleForm::Rule(rule) => Some(rule),
                RuleForm::Slots { .. } => None,
            });
            ruleset.chains.insert(chain, rules.collect());
        }
        Ok(Self { ruleset, sysctls: document.sysctls })
    }
}

/// The family of a map of slots, `spread4` and `spread6`, as documents had it before each of a listener's targets had a map.
fn family_of_slots(name: &str) -> Option<Family> {
    match name {
        "spread4" => Some(Family::Ipv4),
        "spread6" => Some(Family::Ipv6),
        _ => None,
    }
}

/// The elements of such a map, `10.0.0.55 . 6390 . 0-29`: a listener's targets in the order of their slots.
fn from_slots(family: Family, forms: Vec<ElementForm>) -> Result<Vec<(Set, Key, Element)>, JsonError> {
    let mut targets: BTreeMap<(Key, u8), Element> = BTreeMap::new();
    let forward = Set::new(SetKind::Forward(ListIndex::FIRST), family);
    for form in forms {
        let unknown = || JsonError::Unknown { place: "sets.spread".to_owned(), text: form.key.to_string() };
        let (listen, slots) = form.key.rsplit_once(" . ").ok_or_else(unknown)?;
        let first = slots.split('-').next().and_then(|first| first.parse().ok()).ok_or_else(unknown)?;
        let (key, element) = element(forward, ElementForm { key: listen.into(), ..form.clone() })?;
        targets.insert((key, first), element);
    }
    let mut counts: BTreeMap<Key, usize> = BTreeMap::new();
    let placed = targets.into_iter().filter_map(|((key, _), element)| {
        let count = counts.entry(key).or_default();
        *count += 1;
        let set = match *count {
            1 => forward,
            number => Set::new(SetKind::Spread(ListIndex::FIRST, SpreadIndex::new(number)?), family),
        };
        Some((set, key, element))
    });
    Ok(placed.collect())
}

/// What stands before each entry of a list that has a line for each.
fn separators() -> impl Iterator<Item = &'static str> {
    std::iter::once("\n").chain(std::iter::repeat(",\n"))
}

fn by_name(chains: &BTreeMap<Chain, Vec<Rule>>) -> BTreeMap<String, Vec<&Rule>> {
    chains.iter().map(|(chain, rules)| (chain.name().to_owned(), rules.iter().collect())).collect()
}

/// The JSON, behind `before`, of what is made of strings, numbers and maps with string keys, and so cannot fail to
/// serialize.
fn compact(before: &str, form: &impl Serialize) -> String {
    let mut json = Vec::with_capacity(128);
    json.extend_from_slice(before.as_bytes());
    serde_json::to_writer(&mut json, form).expect("strings, numbers and maps with string keys serialize");
    String::from_utf8(json).expect("JSON is UTF-8")
}

fn element(set: Set, form: ElementForm) -> Result<(Key, Element), JsonError> {
    let unknown = |text: &str| JsonError::Unknown { place: format!("sets.{set}"), text: text.to_owned() };
    let key =
        Key::parse(set.kind, &form.key).filter(|key| key.fits(set)).ok_or_else(|| unknown(&form.key))?;
    let data = match &form.to {
        Some(text) if set.is_map() => Some(text.parse::<AddrPort>().map_err(|_| unknown(text))?),
        Some(text) => return Err(unknown(text)),
        None if set.is_map() => return Err(unknown(&form.key)),
        None => None,
    };
    if let Some(data) = data.filter(|data| Family::of(data.address) != set.family) {
        return Err(unknown(&data.to_string()));
    }
    if let Some(id) = form.id.as_deref().filter(|id| id.parse::<ForwardId>().is_err()) {
        return Err(unknown(id));
    }
    Ok((key, Element { data, comment: form.id }))
}

impl Key {
    /// Whether it is of the set's family.
    fn fits(&self, set: Set) -> bool {
        let of_family = |address| Family::of(address) == set.family;
        match *self {
            Self::Addresses(range) => of_family(range.first()) && of_family(range.last()),
            Self::AddrPort(endpoint) => of_family(endpoint.address),
        }
    }

    /// Reads a key of a set of that kind, in nft's words.
    fn parse(kind: SetKind, text: &str) -> Option<Self> {
        let endpoint = |address: &str, port: &str| {
            Some(AddrPort { address: address.parse().ok()?, port: port.parse().ok()? })
        };
        let fields: Vec<&str> = text.split(" . ").collect();
        match (kind, fields.as_slice()) {
            (SetKind::Clients(_), [range]) => Some(Self::Addresses(range.parse().ok()?)),
            (
                SetKind::Forward(_)
                | SetKind::Spread(..)
                | SetKind::Routed(_)
                | SetKind::Backends
                | SetKind::Listeners,
                [address, port],
            ) => Some(Self::AddrPort(endpoint(address, port)?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_from_before_each_target_had_a_map_has_the_same_forwards() {
        let text = r#"{"version":1,"table":"inet cachenat","sets":{
            "forward4":[{"key":"10.0.0.55 . 6379","to":"10.0.1.230:6379","id":"c-001"}],
            "spread4":[
                {"key":"10.0.0.55 . 6390 . 20-39","to":"10.0.1.232:6379","id":"c/reader"},
                {"key":"10.0.0.55 . 6390 . 0-19","to":"10.0.1.231:6379","id":"c/reader"},
                {"key":"10.0.0.55 . 6390 . 40-59","to":"10.0.1.233:6379","id":"c/reader"}]},
            "chains":{"prerouting":[{"rule":"forward","interface":"eth0","family":"ip"},
                                    {"rule":"spread","interface":"eth0","family":"ip"}]},
            "sysctls":[]}"#;
        let found = DesiredState::from_json(text).unwrap().ruleset.forwards();
        let targets: Vec<String> =
            found.iter().map(|forward| crate::diff::targets(&forward.targets)).collect();
        assert_eq!(targets, ["10.0.1.230:6379", "10.0.1.231:6379, 10.0.1.232:6379, 10.0.1.233:6379"]);
        for key in ["10.0.0.55 . 6390", "10.0.0.55 . 6390 . x", ""] {
            let broken = text.replace("10.0.0.55 . 6390 . 20-39", key);
            assert!(matches!(DesiredState::from_json(&broken), Err(JsonError::Unknown { .. })), "{key}");
        }
    }
}
