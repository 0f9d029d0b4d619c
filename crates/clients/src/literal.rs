//! Names and texts as the languages write them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use discovery::Role;

use crate::Protocol;

/// A string in double quotes that Python, JavaScript, Java, Go and C# all read as it is meant.
///
/// Hosts and ids hold no control characters; should one get here, it becomes a `_` rather than code.
pub(crate) fn double(text: &str) -> String {
    format!("\"{}\"", escaped(text, '"'))
}

/// A string in single quotes as PHP reads it: nothing but `\` and `'` is special there, `$` least of all.
pub(crate) fn single(text: &str) -> String {
    format!("'{}'", escaped(text, '\''))
}

fn escaped(text: &str, quote: char) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            c if c == quote => escaped.extend(['\\', c]),
            c => escaped.push(printable(c)),
        }
    }
    escaped
}

/// Text that may be in a comment of any language: letters, digits and `._/-`, with `_` for all else, so that it ends
/// no comment (`?>`, `*/`, a line's end, Java's `\u000a`, C's `??/`) and starts no directive.
#[derive(Clone, Debug)]
pub(crate) struct Comment(String);

impl Comment {
    /// `my-cluster-001, primary`.
    pub(crate) fn of_node(id: &str, role: Option<Role>) -> Self {
        let Self(id) = comment(id);
        Self(role.map_or_else(|| id.clone(), |role| format!("{id}, {role}")))
    }
}

impl Display for Comment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name as a comment may hold it.
pub(crate) fn comment(text: &str) -> Comment {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    Comment(text.chars().map(|c| if is_plain(c) { c } else { '_' }).collect())
}

/// A value that a shell, systemd and dotenv all take as it is; quoted only where it has to be.
pub(crate) fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+=[]".contains(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    let text: String = text.chars().map(printable).collect();
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn printable(c: char) -> char {
    // U+2028 ends a line in JavaScript, marks of direction show code as what it is not, `??/` is a `\` in older C.
    if c == ' ' || (c.is_ascii_graphic() && c != '?') { c } else { '_' }
}

/// A word for each cache to make identifiers of, none like another in any language, whatever the order of the caches.
///
/// A name that looks like another's without its punctuation and case gets a number made of the name itself.
pub(crate) fn distinct(caches: &[(&str, Protocol)]) -> Vec<String> {
    let bare = |name: &str| pascal(name).to_ascii_lowercase();
    // hiredis' snippet has an outside_connect of its own.
    let mut seen: BTreeMap<String, usize> = [("outside".to_owned(), 1)].into();
    caches.iter().for_each(|(name, _)| *seen.entry(bare(name)).or_default() += 1);
    let is_alone = |name: &str| seen.get(&bare(name)) == Some(&1);
    let mut taken: BTreeSet<String> = seen.keys().cloned().collect();
    let sorted: BTreeSet<(&str, Protocol)> = caches.iter().copied().collect();
    let mut words: BTreeMap<(&str, Protocol), String> = BTreeMap::new();
    for (name, protocol) in sorted {
        let numbered =
            |salt: u32| format!("{name}-{:08x}", fingerprint(&format!("{salt} {protocol:?} {name}")));
        let free = |word: &String| taken.insert(bare(word));
        let word = if is_alone(name) { Some(name.to_owned()) } else { (0..).map(numbered).find(free) };
        words.insert((name, protocol), word.unwrap_or_default());
    }
    caches.iter().map(|cache| words.get(cache).cloned().unwrap_or_default()).collect()
}

/// FNV-1a: the same in every version of this program.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// `my_cluster`, which the templates end with `_cache` and the like, so that it is no keyword.
pub(crate) fn snake(name: &str) -> String {
    words(name).join("_")
}

/// `MY_CLUSTER`.
pub(crate) fn upper(name: &str) -> String {
    snake(name).to_ascii_uppercase()
}

/// `myCluster`.
pub(crate) fn camel(name: &str) -> String {
    let pascal = pascal(name);
    let mut characters = pascal.chars();
    characters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(characters).collect()
}

/// `MyCluster`.
pub(crate) fn pascal(name: &str) -> String {
    let capital = |word: String| {
        let mut characters = word.chars();
        characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
    };
    words(name).into_iter().map(capital).collect::<Vec<String>>().concat()
}

fn words(name: &str) -> Vec<String> {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let mut words: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    if words.first().is_none_or(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
        words.insert(0, "cache".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_name_gets_out_of_its_quotes() {
        assert_eq!(double("a\"+evil()\\\n"), r#""a\"+evil()\\_""#);
        assert_eq!(single("a'.evil().'$x"), r"'a\'.evil().\'$x'");
        assert_eq!(double("a??/\u{202e}"), r#""a__/_""#);
        assert_eq!(shell("redis://h:1"), "redis://h:1");
        assert_eq!(shell("$(evil) ' "), r"'$(evil) '\'' '");
    }

    #[test]
    fn a_comment_holds_letters_digits_and_four_signs() {
        assert_eq!(comment("shop?><?php x\\u000a*/\u{2028}").to_string(), "shop____php_x_u000a_/_");
        assert_eq!(Comment::of_node("a/b-1.c_d", Some(Role::Primary)).to_string(), "a/b-1.c_d, primary");
    }

    #[test]
    fn twins_get_words_of_their_own_in_any_order() {
        let names = ["shop-a", "shop.a", "SHOP_A", "shopa", "é", "ü", "outside", "carts", "cache-1", "1"];
        let mut caches: Vec<(&str, Protocol)> = names.map(|name| (name, Protocol::Redis)).to_vec();
        caches.push(("carts", Protocol::Memcached));
        let words = distinct(&caches);
        let bare: BTreeSet<String> = words.iter().map(|word| pascal(word).to_ascii_lowercase()).collect();
        assert_eq!(bare.len(), caches.len(), "{words:?}");
        assert!(!bare.contains("outside"), "{words:?}");
        caches.reverse();
        assert_eq!(distinct(&caches).into_iter().rev().collect::<Vec<_>>(), words);
        assert_eq!(distinct(&[("shop-a", Protocol::Redis), ("carts", Protocol::Redis)]), ["shop-a", "carts"]);
    }

    #[test]
    fn every_name_becomes_an_identifier() {
        assert_eq!(snake("my-cluster"), "my_cluster");
        assert_eq!(camel("my-cluster"), "myCluster");
        assert_eq!(pascal("0lab.é"), "Cache0lab");
        assert_eq!(camel(""), "cache");
    }
}
