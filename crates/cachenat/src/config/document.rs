//! YAML with places: the one module that knows serde_yaml.
//!
//! serde_yaml gives a value no line. But an error that is raised while it visits a value gets that value's line; so the
//! line of a mistake is found by walking to it a second time and failing there on purpose.

use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::Value;

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Into the value of a mapping's key.
    Key(String),
    /// Into a list's item, counted from 0.
    Index(usize),
}

impl Step {
    pub(crate) fn key(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

/// Something wrong in the file: `12: sources[1].prots: unknown key; did you mean ports?`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    line: Option<usize>,
    key: Vec<Step>,
    what: String,
    remedy: String,
}

impl Mistake {
    /// A mistake at `key` of the document `text`.
    pub(crate) fn new(text: &str, key: Vec<Step>, what: String, remedy: String) -> Self {
        // Of a key that is not there, the nearest thing that is holds the line.
        let line = (0..=key.len()).rev().find_map(|depth| line_of(text, key.get(..depth)?));
        Self { line, key, what, remedy }
    }
}

impl Display for Mistake {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "{line}: ")?;
        }
        for (at, step) in self.key.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(&plain(key))?,
                Step::Key(key) => write!(f, ".{}", plain(key))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        let separator = if self.key.is_empty() { "" } else { ": " };
        write!(f, "{separator}{}; {}", self.what, self.remedy)
    }
}

/// A document that is being read; it gathers the mistakes that its readers find.
pub(crate) struct Document<'a> {
    text: &'a str,
    root: Value,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Document<'a> {
    /// Parses YAML; a mapping with a key twice is refused.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Mistake> {
        let root = serde_yaml::from_str(text).map_err(|error| {
            let line = error.location().map(|location| location.line());
            let what = plain(&error.to_string());
            Mistake { line, key: vec![], what, remedy: "the file must be YAML, see cachenat(1)".to_owned() }
        })?;
        Ok(Self { text, root, mistakes: RefCell::default() })
    }

    /// The whole document.
    pub(crate) fn root(&self) -> Node<'_> {
        Node { document: self, value: &self.root, path: vec![] }
    }

    /// The mistakes found so far, in the order of the file.
    pub(crate) fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.borrow().clone();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }
}

/// A value of the document that knows where it is.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    document: &'a Document<'a>,
    value: &'a Value,
    path: Vec<Step>,
}

impl<'a> Node<'a> {
    /// Records a mistake here.
    pub(crate) fn mistake(&self, what: impl Into<String>, remedy: impl Into<String>) {
        let mistake = Mistake::new(self.document.text, self.path.clone(), what.into(), remedy.into());
        self.document.mistakes.borrow_mut().push(mistake);
    }

    fn step(&self, step: Step, value: &'a Value) -> Self {
        let mut path = self.path.clone();
        path.push(step);
        Self { document: self.document, value, path }
    }

    fn unexpected(&self, expected: &str) {
        self.mistake(format!("found {}", shown(self.value)), format!("write {expected}"));
    }

    /// Text; `what` says what belongs here, for the mistake.
    ///
    /// Of what YAML takes for a number or a truth value only the value is left: `1.10` would be `1.1`.
    pub(crate) fn text(&self, what: &str) -> Option<String> {
        match self.value {
            Value::String(text) => return Some(text.clone()),
            Value::Number(number) => self.unquoted(&format!("the number {number}")),
            Value::Bool(truth) => self.unquoted(&format!("the truth value {truth}")),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => self.unexpected(what),
        }
        None
    }

    /// Text that `parse` understands.
    pub(crate) fn parsed<T>(&self, what: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let parsed = parse(&self.text(what)?);
        if parsed.is_none() {
            self.unexpected(what);
        }
        parsed
    }

    /// A number, a truth value or a word that `parse` understands.
    pub(crate) fn scalar<T>(&self, what: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let parsed = match self.value {
            Value::String(text) => parse(text),
            Value::Number(number) => parse(&number.to_string()),
            // `off` is a word of ours; YAML 1.1 writers put `false` for it.
            Value::Bool(truth) => parse(&truth.to_string()),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
        };
        if parsed.is_none() {
            self.unexpected(what);
        }
        parsed
    }

    fn unquoted(&self, taken_for: &str) {
        self.mistake(format!("YAML takes this for {taken_for}"), "quote it, so that every character counts");
    }

    /// The items of a list.
    pub(crate) fn list(&self, what: &str) -> Vec<Node<'a>> {
        let Value::Sequence(items) = self.value else {
            self.unexpected(what);
            return vec![];
        };
        items.iter().enumerate().map(|(index, item)| self.step(Step::Index(index), item)).collect()
    }

    /// The items of a list, or the one value as a list of one.
    pub(crate) fn one_or_more(&self, what: &str) -> Vec<Node<'a>> {
        if self.is_list() { self.list(what) } else { vec![self.clone()] }
    }

    /// Whether the value is a list.
    pub(crate) fn is_list(&self) -> bool {
        self.value.is_sequence()
    }

    /// Whether the value is that word.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.value.as_str() == Some(word)
    }

    /// Whether the value is a mapping.
    pub(crate) fn is_mapping(&self) -> bool {
        self.value.is_mapping()
    }

    /// Every entry of a mapping whose keys are free.
    pub(crate) fn entries(&self, what: &str) -> Vec<(String, Node<'a>)> {
        let Value::Mapping(mapping) = self.value else {
            self.unexpected(what);
            return vec![];
        };
        let entry = |(key, value): (&'a Value, &'a Value)| {
            let key = match key {
                Value::String(key) => key.clone(),
                Value::Number(_) | Value::Bool(_) => {
                    self.mistake(
                        format!("YAML takes the key {} for a number or a truth value", shown(key)),
                        "quote it, so that every character counts",
                    );
                    return None;
                }
                _ => {
                    self.mistake("a key is no word", format!("write {what}"));
                    return None;
                }
            };
            Some((key.clone(), self.step(Step::Key(key), value)))
        };
        mapping.iter().filter_map(entry).collect()
    }

    /// The fields of a mapping that may have only these keys; a key without a value counts as absent.
    pub(crate) fn fields(&self, known: &[&str]) -> Fields<'a> {
        let what = format!("a mapping with the keys {}", known.join(", "));
        let entries = self.entries(&what);
        for (key, node) in entries.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            node.mistake("unknown key", suggestion(key, known));
        }
        let present = entries.into_iter().filter(|(_, node)| !node.value.is_null()).collect();
        Fields { of: self.clone(), entries: present }
    }
}

/// The fields of a mapping.
pub(crate) struct Fields<'a> {
    of: Node<'a>,
    entries: Vec<(String, Node<'a>)>,
}

impl<'a> Fields<'a> {
    /// The field, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<Node<'a>> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node.clone())
    }

    /// The field; its absence is a mistake.
    pub(crate) fn require(&self, key: &str, what: &str) -> Option<Node<'a>> {
        let field = self.get(key);
        if field.is_none() {
            self.of.mistake(format!("{key} is missing"), format!("add {key}: {what}"));
        }
        field
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => format!("{value:?}"),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(tagged) => plain(&tagged.tag.to_string()),
    }
}

/// The text with each character escaped that a terminal would act on.
fn plain(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// The known key that the unknown one was probably meant to be, else all of them.
fn suggestion(key: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|word| (strsim::damerau_levenshtein(key, word), *word)).min();
    match nearest {
        Some((distance, word)) if distance <= 2 => format!("did you mean {word}?"),
        _ => format!("the keys here are {}", known.join(", ")),
    }
}

/// The line of what `path` leads to, counted from 1; for a mapping's key the key's own.
fn line_of(text: &str, path: &[Step]) -> Option<usize> {
    let error = Locate(path).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    (error.to_string().contains(FOUND)).then(|| error.location().map(|location| location.line()))?
}

const FOUND: &str = "this is the place";

struct Locate<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(FOUND)
    }

    // Scalars fall back on the visitor's default: a type error at their own place, worded by `expecting`.

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.0.split_first() else {
            return Err(A::Error::custom(FOUND));
        };
        for _ in 0..*wanted {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Locate(rest)).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else {
            return Err(A::Error::custom(FOUND));
        };
        while let Some(found) = entries.next_key_seed(LocateKey { wanted, last: rest.is_empty() })? {
            if found {
                return entries.next_value_seed(Locate(rest));
            }
            entries.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

struct LocateKey<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for LocateKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for LocateKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        if key == self.wanted && self.last { Err(E::custom(FOUND)) } else { Ok(key == self.wanted) }
    }
}
