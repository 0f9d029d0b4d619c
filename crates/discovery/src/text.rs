//! Text from the API, DNS and files, freed of what a terminal would act on.

use std::ops::Deref;

/// The longest text from outside that is worth repeating to a person.
const MAX_TEXT: usize = 400;

/// The text on one line and of a bounded length, with control and direction-changing characters replaced by `?`.
pub(crate) fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = words.join(" ");
    let mut plain: String =
        line.chars().map(|c| if is_unprintable(c) { '?' } else { c }).take(MAX_TEXT).collect();
    if line.chars().count() > MAX_TEXT {
        plain.push('…');
    }
    plain
}

/// Makes the text [`plain`]; most is already, and is only looked at.
pub(crate) fn make_plain<T: Deref<Target = str> + From<String>>(text: &mut T) {
    if text.len() > MAX_TEXT || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        *text = plain(text).into();
    }
}

/// Whether a terminal might act on the character: C0, C1, and Unicode's invisible direction controls.
pub(crate) fn is_unprintable(c: char) -> bool {
    // U+202A..U+202E and U+2066..U+2069 reorder what follows; U+200B..U+200F and U+FEFF hide in names.
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// What an error comes down to: its innermost cause, as plain text. The SDK's outer layers only repeat their names.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    plain(&innermost.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_line_breaks_never_pass() {
        assert_eq!(plain("a\u{1b}[31mb\r\nc\u{9b}d\u{202e}e"), "a?[31mb c?d?e");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(plain(&"x".repeat(10_000)).chars().count(), MAX_TEXT + 1);
    }
}
