//! Names and texts as the languages write them.

/// A string in double quotes that Python, JavaScript, Java, Go and C# all read as it is meant.
///
/// Hosts and ids hold no control characters; should one get here, it becomes a `?` rather than code.
pub(super) fn double(text: &str) -> String {
    format!("\"{}\"", escaped(text, '"'))
}

/// A string in single quotes as PHP reads it: nothing but `\` and `'` is special there, `$` least of all.
pub(super) fn single(text: &str) -> String {
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

/// A text behind a comment sign: one line, whatever it holds.
pub(super) fn comment(text: &str) -> String {
    text.chars().map(printable).collect()
}

/// A value that a shell, systemd and dotenv all take as it is; quoted only where it has to be.
pub(super) fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+=[]".contains(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", comment(text).replace('\'', r"'\''"))
}

fn printable(c: char) -> char {
    // U+2028 and U+2029 end a line in JavaScript's comments.
    if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { '?' } else { c }
}

/// `my_cluster_cache`: a name that is no keyword anywhere.
pub(super) fn snake(name: &str, suffix: &str) -> String {
    let words = words(name, suffix);
    words.join("_")
}

/// `myClusterCache`.
pub(super) fn camel(name: &str, suffix: &str) -> String {
    let pascal = pascal(name, suffix);
    let mut characters = pascal.chars();
    characters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(characters).collect()
}

/// `MyClusterCache`.
pub(super) fn pascal(name: &str, suffix: &str) -> String {
    let capital = |word: String| {
        let mut characters = word.chars();
        characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
    };
    words(name, suffix).into_iter().map(capital).collect::<Vec<String>>().concat()
}

fn words(name: &str, suffix: &str) -> Vec<String> {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let mut words: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    if words.first().is_none_or(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
        words.insert(0, "cache".to_owned());
    }
    words.push(suffix.to_owned());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_name_gets_out_of_its_quotes() {
        assert_eq!(double("a\"+evil()\\\n"), r#""a\"+evil()\\?""#);
        assert_eq!(single("a'.evil().'$x"), r"'a\'.evil().\'$x'");
        assert_eq!(comment("a\nevil()\u{2028}"), "a?evil()?");
        assert_eq!(shell("redis://h:1"), "redis://h:1");
        assert_eq!(shell("$(evil) ' "), r"'$(evil) '\'' '");
    }

    #[test]
    fn every_name_becomes_an_identifier() {
        assert_eq!(snake("my-cluster", "cache"), "my_cluster_cache");
        assert_eq!(camel("my-cluster", "cache"), "myClusterCache");
        assert_eq!(pascal("0lab.é", "cache"), "Cache0labCache");
        assert_eq!(camel("", "cache"), "cacheCache");
    }
}
