//! Text from the API, DNS and files, freed of what a terminal would act on.
//!
//! [`plain`] is idempotent: text is cleaned where it enters, and what we wrote ourselves is read back unchanged.

use std::{net::IpAddr, ops::Deref};

/// The longest text from outside that is worth repeating to a person.
const MAX_TEXT: usize = 400;

/// The text on one line and of a bounded length, with control and direction-changing characters replaced by `?`.
pub(crate) fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = words.join(" ");
    let plain = line.chars().map(|c| if is_unprintable(c) { '?' } else { c });
    // The mark counts too, or a text that was cut would be cut again when it is read back.
    match line.chars().nth(MAX_TEXT) {
        None => plain.collect(),
        Some(_) => plain.take(MAX_TEXT - 1).chain(['…']).collect(),
    }
}

/// Makes the text [`plain`]; most is already, and is only looked at.
pub(crate) fn make_plain<T: Deref<Target = str> + From<String>>(text: &mut T) {
    if text.len() > MAX_TEXT || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        *text = plain(text).into();
    }
}

/// The host, where it is an address in its one usual spelling: `::ffff:10.0.1.9` is 10.0.1.9 to the kernel.
pub(crate) fn canonical_host(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => host.to_owned(),
    }
}

/// Whether a terminal might act on the character: C0, C1, and Unicode's invisible direction controls.
pub(crate) fn is_unprintable(c: char) -> bool {
    // U+202A..U+202E, U+2066..U+2069 and U+061C reorder what follows; U+200B..U+200F and U+FEFF hide in names.
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}')
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_and_line_breaks_never_pass() {
        assert_eq!(plain("a\u{1b}[31mb\r\nc\u{9b}d\u{202e}e"), "a?[31mb c?d?e");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(plain(&"x".repeat(MAX_TEXT)), "x".repeat(MAX_TEXT));
        let cut = plain(&"x".repeat(10_000));
        assert_eq!((cut.chars().count(), cut.ends_with('…')), (MAX_TEXT, true));
    }

    proptest! {
        /// Text that a terminal could act on, of all lengths around the bound.
        #[test]
        fn plain_text_stays_as_it_is(text in "[\\PC \t\r\n\u{0}-\u{1f}\u{85}\u{a0}\u{200b}\u{2028}\u{202e}é]{0,420}") {
            let once = plain(&text);
            prop_assert_eq!(plain(&once), once.clone());
            prop_assert!(!once.chars().any(is_unprintable));
            prop_assert!(once.chars().count() <= MAX_TEXT);
        }
    }
}
