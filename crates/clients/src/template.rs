//! Fills the snippets in `templates/`, one file for each library.
//!
//! A value replaces `@name@`. `@each nodes@` repeats what follows, up to `@endeach nodes@`, for each node;
//! `@if tls@` and `@unless tls@` keep it or drop it. A marker that is a line by itself leaves no blank line. Inside
//! a repeated block, its own places come before those around it. Values are never searched for places.

use std::fmt::Display;

/// The values of a template's places.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<(&'static str, Value)>);

#[derive(Debug)]
enum Value {
    Text(String),
    Flag(bool),
    Each(Vec<Places>),
}

impl Places {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// `@name@`; also `@if name@`, which holds unless the text is empty.
    pub(crate) fn text(self, name: &'static str, value: impl Display) -> Self {
        self.with(name, Value::Text(value.to_string()))
    }

    /// `@if name@` and `@unless name@`.
    pub(crate) fn flag(self, name: &'static str, holds: bool) -> Self {
        self.with(name, Value::Flag(holds))
    }

    /// `@each name@`; also `@if name@`, which holds unless there are no items.
    pub(crate) fn each<T>(
        self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        places: impl Fn(T) -> Places,
    ) -> Self {
        self.with(name, Value::Each(items.into_iter().map(places).collect()))
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.0.push((name, value));
        self
    }

    /// The template with its places filled.
    ///
    /// A debug build panics if a place has no value, or a value no place.
    pub(crate) fn fill(&self, template: &str) -> String {
        if cfg!(debug_assertions) {
            self.assert_used(template);
        }
        expand(template, &[self])
    }

    fn assert_used(&self, template: &str) {
        for (name, value) in &self.0 {
            let is_place = |start| template.contains(&format!("{start}{name}@"));
            assert!(is_place('@') || is_place(' '), "no place @{name}@ in {template}");
            if let Value::Each(items) = value {
                items.iter().for_each(|item| item.assert_used(template));
            }
        }
    }
}

fn expand(template: &str, scopes: &[&Places]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, tag, after)) = next_tag(rest) {
        text.push_str(before);
        let (kind, name) = tag.split_once(' ').unwrap_or(("", tag));
        let (body, after) = if kind.is_empty() { ("", after) } else { block(kind, name, after) };
        match (kind, find(scopes, name)) {
            ("", Some(Value::Text(value))) => text.push_str(value),
            ("each", Some(Value::Each(items))) => {
                items.iter().for_each(|item| text.push_str(&expand(body, &[scopes, &[item]].concat())));
            }
            ("if", Some(value)) if holds(value) => text.push_str(&expand(body, scopes)),
            ("unless", Some(value)) if !holds(value) => text.push_str(&expand(body, scopes)),
            ("if" | "unless", Some(_)) => {}
            (_, value) => debug_assert!(false, "@{tag}@ has {value:?} in {template}"),
        }
        rest = after;
    }
    text + rest
}

/// What comes before the first tag, the tag, and what comes after it. An `@` that starts no tag is text.
fn next_tag(text: &str) -> Option<(&str, &str, &str)> {
    let is_tag =
        |tag: &str| !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphabetic() || "_ ".contains(c));
    text.match_indices('@').find_map(|(at, _)| {
        let (before, from) = text.split_at(at);
        let (tag, after) = from.strip_prefix('@')?.split_once('@')?;
        is_tag(tag).then_some((before, tag, after))
    })
}

/// What a block repeats or keeps, and what comes after the block.
fn block<'a>(kind: &str, name: &str, after: &'a str) -> (&'a str, &'a str) {
    let end = format!("@end{kind} {name}@");
    let found = match after.strip_prefix('\n') {
        Some(lines) => lines.split_once(&format!("{end}\n")),
        None => after.split_once(&end),
    };
    debug_assert!(found.is_some(), "no {end} in {after}");
    found.unwrap_or((after, ""))
}

fn find<'a>(scopes: &[&'a Places], name: &str) -> Option<&'a Value> {
    let mut values = scopes.iter().rev().flat_map(|places| &places.0);
    values.find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn holds(value: &Value) -> bool {
    match value {
        Value::Text(text) => !text.is_empty(),
        Value::Flag(holds) => *holds,
        Value::Each(items) => !items.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_not_searched_for_places() {
        let places = Places::new().text("host", "@port@").text("port", 6379);
        assert_eq!(
            places.fill("@host@:@port@ a@b.example @valkey/glide"),
            "@port@:6379 a@b.example @valkey/glide"
        );
    }

    #[test]
    fn markers_leave_no_blank_lines() {
        let template = "[\n@each nodes@\n  @id@@if tls@, tls@endif tls@\n@endeach nodes@\n]\n@unless tls@\nplain\n@endunless tls@\n";
        let fill = |tls, ids: &[&str]| {
            let id = |id: &&str| Places::new().text("id", id);
            Places::new().flag("tls", tls).each("nodes", ids, id).fill(template)
        };
        assert_eq!(fill(true, &["a", "b"]), "[\n  a, tls\n  b, tls\n]\n");
        assert_eq!(fill(false, &[]), "[\n]\nplain\n");
    }

    #[test]
    fn empty_texts_and_lists_do_not_hold() {
        let fill = |places: Places| places.fill("@if a@yes@endif a@@unless a@no@endunless a@");
        assert_eq!(fill(Places::new().text("a", "x")), "yes");
        assert_eq!(fill(Places::new().text("a", "")), "no");
        assert_eq!(fill(Places::new().each("a", [()], |()| Places::new())), "yes");
        assert_eq!(fill(Places::new().each("a", [(); 0], |()| Places::new())), "no");
    }

    #[test]
    #[should_panic(expected = "@port@ has None")]
    fn a_place_without_a_value_panics() {
        Places::new().text("host", "a").fill("@host@:@port@");
    }

    #[test]
    #[should_panic(expected = "no place @port@")]
    fn a_value_without_a_place_panics() {
        Places::new()
            .each("nodes", [1], |port| Places::new().text("port", port))
            .fill("@each nodes@@endeach nodes@");
    }

    #[test]
    #[should_panic(expected = "no @endif tls@")]
    fn a_block_without_an_end_panics() {
        Places::new().flag("tls", true).fill("@if tls@");
    }
}
