//! Usernames: how they are written, which of them are the same, and which nobody can register (after RFC 8265,
//! UsernameCaseMapped, with NFKC).

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, JoiningType},
};
use sha2::{Digest, Sha256};

use crate::host::Host;

/// A username.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// As its owner writes it: in NFKC, trimmed.
    pub shown: String,
    /// Without joiners, in NFKC and lower case: equal for all spellings of one name.
    pub folded: String,
}

/// A short one-way hash of a username, whether the account exists or not.
pub type NameTag = [u8; 16];

/// ZERO WIDTH NON-JOINER: keeps letters apart that would be joined, in Persian and in Indic scripts.
const ZWNJ: char = '\u{200c}';

/// ZERO WIDTH JOINER: asks for another form of a consonant, in Indic scripts.
const ZWJ: char = '\u{200d}';

impl Name {
    /// A name that no account can have.
    pub fn impossible() -> Self {
        Self { shown: String::new(), folded: String::new() }
    }

    /// Parses a username. It may be one that nobody can register any more: [`Name::fault`]. The error is a text for its
    /// owner.
    pub fn parse(text: &str, host: &impl Host) -> Result<Self, &'static str> {
        // No need to normalise longer texts: none becomes that much shorter.
        if text.len() > 10_000 {
            return Err(LENGTH);
        }
        let shown = host.nfkc(text).trim().to_owned();
        let folded = host.nfkc(&host.lower_case(shown.replace([ZWNJ, ZWJ], "").trim()));
        if folded.is_empty() || shown.chars().count() > 128 {
            return Err(LENGTH);
        }
        Ok(Self { shown, folded })
    }

    /// Why a new account cannot have it. The text is for its owner.
    pub fn fault(&self, host: &impl Host) -> Option<&'static str> {
        if self.shown.chars().next().is_some_and(|first| host.is_mark(first)) {
            return Some("a username does not begin with a mark that belongs to a letter before it");
        }
        let is_visible = |(at, character)| match character {
            ZWNJ | ZWJ => self
                .shown
                .split_at_checked(at)
                .is_some_and(|(before, rest)| is_joiner_allowed(before, rest, host)),
            _ => !is_invisible(character),
        };
        if !self.shown.char_indices().all(is_visible) {
            return Some("a username holds no control characters and nothing invisible");
        }
        is_mixed(&self.shown)
            .then_some("a username does not mix Latin, Greek and Cyrillic letters, which look alike")
    }

    /// The name's tag.
    pub fn tag(&self) -> NameTag {
        let hash =
            Sha256::new().chain_update(b"cloakroom name tag v1 ").chain_update(&self.folded).finalize();
        hash.first_chunk().copied().unwrap_or_default()
    }
}

const LENGTH: &str = "a username has 1 to 128 characters";

/// Whether a joiner, the first of `rest`, changes how the text is written (RFC 5892 appendices A.1 and A.2): it stands after
/// a virama or, if it is a ZWNJ, between letters that would be joined.
fn is_joiner_allowed(before: &str, rest: &str, host: &impl Host) -> bool {
    let joining_type = CodePointMapData::<JoiningType>::new();
    if before.chars().next_back().is_some_and(|last| is_virama(last, host)) {
        return true;
    }
    let type_of = |character: char| joining_type.get(character);
    let is_letter = |one: &JoiningType| *one != JoiningType::Transparent;
    let left = before.chars().rev().map(type_of).find(is_letter);
    let right = rest.chars().skip(1).map(type_of).find(is_letter);
    rest.starts_with(ZWNJ)
        && matches!(left, Some(JoiningType::LeftJoining | JoiningType::DualJoining))
        && matches!(right, Some(JoiningType::RightJoining | JoiningType::DualJoining))
}

/// Whether a character is a virama: of canonical combining class 9. Normalization sorts marks by their class, so that one of 9
/// comes before one of 10, and behind one of 8.
fn is_virama(character: char, host: &impl Host) -> bool {
    const CLASS_8: char = '\u{3099}';
    const CLASS_10: char = '\u{5b0}';
    let sorted = |first: char, second: char| host.nfkc(&String::from_iter([first, second]));
    ![CLASS_8, CLASS_10].contains(&character)
        && sorted(CLASS_10, character) == String::from_iter([character, CLASS_10])
        && sorted(character, CLASS_8) == String::from_iter([CLASS_8, character])
}

/// What is not drawn, has no meaning that everybody knows, or looks like a space and is none.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || (character.is_whitespace() && character != ' ')
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
        || matches!(
            character,
            // For private use, no characters, or instead of others.
            '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..='\u{10ffff}'
            // Blanks and joiners among the letters, marks and symbols.
            | '\u{2800}' | '\u{2d7f}' | '\u{1107f}' | '\u{13430}'..='\u{1343f}' | '\u{13441}' | '\u{13442}'
            | '\u{16fe4}' | '\u{1d159}'
        )
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

    /// The folded name, if somebody can register it.
    fn registered(text: &str) -> Result<String, &'static str> {
        let name = Name::parse(text, &Machine)?;
        name.fault(&Machine).map_or(Ok(name.folded), Err)
    }

    #[test]
    fn what_nobody_can_see_or_tell_apart_is_refused() {
        for text in
            ["", "   ", "a\u{200b}b", "a\0", "a\nb", "\u{202e}ada", "p\u{430}ypal", "ada\u{feff}", "Αda"]
        {
            assert!(registered(text).is_err(), "{text:?}");
        }
        assert!(registered(&"é".repeat(128)).is_ok() && registered(&"é".repeat(129)).is_err());
        for text in ["ada lovelace", "Ада", "Ἀθηνᾶ", "山田", "o'neil-2@example.com", "🧥", "हिन्दी", "أَحْمَد"]
        {
            assert!(registered(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn whatever_is_not_drawn_is_refused_wherever_it_stands() {
        let blanks =
            [0x2800, 0x3164, 0xffa0, 0x115f, 0x17b4, 0x1d159, 0x13441, 0x16fe4, 0xfffc, 0xad, 0x34f, 0x180e];
        let others = [0x2028, 0x1680, 0xfe0f, 0xe0041, 0xe000, 0x10fffd, 0xffff, 0xfff9, 0x7f, 0x85];
        for character in blanks.into_iter().chain(others).filter_map(char::from_u32) {
            assert!(registered(&format!("a{character}b")).is_err(), "{character:?}");
            // Spaces of any kind at the ends of a name are no part of it.
            let at_ends = [format!("a{character}"), format!("{character}a"), character.into()];
            let is_taken = |text: &String| !character.is_whitespace() && registered(text).is_ok();
            assert!(!at_ends.iter().any(is_taken), "{character:?}");
        }
    }

    #[test]
    fn a_name_does_not_begin_with_a_combining_mark() {
        for mark in ["\u{301}", "\u{20dd}", "\u{93f}", "\u{64b}", "\u{903}"] {
            assert!(
                registered(&format!("{mark}ada")).is_err() && registered(&format!(" {mark}")).is_err(),
                "{mark:?}"
            );
            assert!(registered(&format!("ada{mark}")).is_ok(), "{mark:?}");
        }
    }

    #[test]
    fn joiners_stand_where_scripts_need_them_and_make_no_other_name() {
        for (text, is_allowed) in [
            ("می\u{200c}خواهم", true),
            ("خانه\u{200c}ای", true),
            // Marks between the letters and the joiner.
            ("بِ\u{200c}ب", true),
            ("क्\u{200d}ष", true),
            ("क्\u{200c}ष", true),
            ("ක්\u{200d}ය", true),
            // Nothing would be joined there.
            ("د\u{200c}ا", false),
            ("می\u{200c}", false),
            ("\u{200c}می", false),
            ("می\u{200c}\u{200c}خواهم", false),
            ("می\u{200d}خواهم", false),
            ("می\u{200c} خواهم", false),
            ("क\u{200d}ष", false),
            ("क्\u{200d}\u{200d}ष", false),
            ("a\u{200c}da", false),
            ("a\u{200d}da", false),
            ("👩\u{200d}💻", false),
        ] {
            assert_eq!(registered(text).is_ok(), is_allowed, "{text:?}");
            assert_eq!(folded(text), folded(&text.replace([ZWNJ, ZWJ], "")), "{text:?}");
        }
        assert!(folded("\u{200d}").is_err() && folded("\u{200c} \u{200d}").is_err());
    }

    #[test]
    fn who_has_such_a_name_already_can_log_in() {
        for text in ["a\u{2800}b", "\u{301}ada", "a\u{200b}b", "p\u{430}ypal"] {
            assert_eq!(folded(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_virama_is_what_has_the_combining_class_9() {
        for character in char::MIN..=char::MAX {
            let is_virama = unicode_normalization::char::canonical_combining_class(character) == 9;
            assert_eq!(super::is_virama(character, &Machine), is_virama, "{character:?}");
        }
    }
}
