//! Usernames: how they are written, and which of them are the same (RFC 8265, UsernameCaseMapped, after NFKC).

use sha2::{Digest, Sha256};

use crate::host::Host;

/// A username.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// As its owner writes it: in NFKC, trimmed.
    pub shown: String,
    /// In NFKC and lower case: equal for all spellings of one name.
    pub folded: String,
}

/// A short one-way hash of a username, whether the account exists or not.
pub type NameTag = [u8; 16];

impl Name {
    /// A name that no account can have.
    pub fn impossible() -> Self {
        Self { shown: String::new(), folded: String::new() }
    }

    /// Parses a username. The error is a text for its owner.
    pub fn parse(text: &str, host: &impl Host) -> Result<Self, &'static str> {
        // No need to normalise longer texts: none becomes that much shorter.
        if text.len() > 10_000 {
            return Err(LENGTH);
        }
        let shown = host.nfkc(text).trim().to_owned();
        let folded = host.nfkc(&host.lower_case(&shown));
        if shown.is_empty() || shown.chars().count() > 128 {
            return Err(LENGTH);
        }
        if shown.chars().any(is_invisible) {
            return Err("a username holds no control characters and nothing invisible");
        }
        if is_mixed(&shown) {
            return Err("a username does not mix Latin, Greek and Cyrillic letters, which look alike");
        }
        Ok(Self { shown, folded })
    }

    /// The name's tag.
    pub fn tag(&self) -> NameTag {
        let hash =
            Sha256::new().chain_update(b"cloakroom name tag v1 ").chain_update(&self.folded).finalize();
        hash.first_chunk().copied().unwrap_or_default()
    }
}

const LENGTH: &str = "a username has 1 to 128 characters";

/// Control characters, spaces that are none, and what is not drawn (Unicode's Default_Ignorable_Code_Point).
fn is_invisible(character: char) -> bool {
    character.is_control()
        || (character.is_whitespace() && character != ' ')
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{10ffff}')
}

/// Whether letters of more than one of the scripts come together that are hard to tell apart (UTS #39).
fn is_mixed(text: &str) -> bool {
    let script = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => 1_u8,
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => 2,
        '\u{400}'..='\u{52f}' => 4,
        _ => 0,
    };
    text.chars().fold(0, |seen, character| seen | script(character)).count_ones() > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::Machine;

    fn folded(text: &str) -> Result<String, &'static str> {
        Name::parse(text, &Machine).map(|name| name.folded)
    }

    #[test]
    fn spellings_of_one_name_are_one() {
        for (one, other) in [
            ("Ada", "ada"),
            ("  ada ", "ADA"),
            ("ａｄａ", "ada"),
            ("ﬁne", "fine"),
            ("e\u{301}mile", "Émile"),
            ("straße", "STRASSE"),
        ] {
            let is_same = folded(one) == folded(other);
            assert_eq!(is_same, one != "straße", "{one} {other}");
            assert!(folded(one).is_ok());
        }
    }

    #[test]
    fn what_nobody_can_see_or_tell_apart_is_refused() {
        for text in
            ["", "   ", "a\u{200b}b", "a\0", "a\nb", "\u{202e}ada", "p\u{430}ypal", "ada\u{feff}", "Αda"]
        {
            assert!(folded(text).is_err(), "{text:?}");
        }
        assert!(folded(&"é".repeat(128)).is_ok() && folded(&"é".repeat(129)).is_err());
        for text in ["ada lovelace", "Ада", "Ἀθηνᾶ", "山田", "o'neil-2@example.com"] {
            assert!(folded(text).is_ok(), "{text}");
        }
    }
}
