//! What a new password must not be (NIST SP 800-63B, OWASP ASVS 5.0 V6.2): too short, or one of those that are guessed first.
//! There are no rules about kinds of characters.

use crate::host::Host;

/// The shortest and the longest password that can be chosen, in characters.
pub(crate) const MIN_LENGTH: usize = 8;
pub(crate) const MAX_LENGTH: usize = 1024;

/// The most common passwords of eight characters and more, one a line, folded. `tools/common-passwords.mjs` writes them, from
/// Django's list: BSD, see `common_passwords.LICENSE`.
const COMMON: &str = include_str!("common_passwords.txt");

/// A text in which spellings that differ in case, or in Unicode's compatible forms, are equal.
pub fn fold(text: &str, host: &impl Host) -> String {
    host.nfkc(&host.lower_case(&host.nfkc(text)))
}

/// What is wrong with a new password. `name`: the account's, folded. `forbidden`: words that no password may hold, folded by
/// [`fold`]. The text is for the owner, and repeats nothing of the password.
pub fn fault(password: &str, name: &str, forbidden: &[String], host: &impl Host) -> Option<&'static str> {
    let length = password.chars().count();
    if length < MIN_LENGTH {
        return Some("a password has at least 8 characters");
    }
    if length > MAX_LENGTH {
        return Some("a password has at most 1024 characters");
    }
    let folded = fold(password, host);
    if COMMON.lines().any(|common| common == folded) || is_monotonous(&folded) || folded == name {
        return Some("this password is too common; choose another");
    }
    let holds_forbidden = forbidden.iter().any(|word| folded.contains(word.as_str()));
    holds_forbidden.then_some("this password holds a word that is easy to guess on this site; choose another")
}

/// Two different characters at the most.
fn is_monotonous(password: &str) -> bool {
    let mut kinds: Vec<char> = Vec::new();
    for character in password.chars() {
        if !kinds.contains(&character) {
            kinds.push(character);
            if kinds.len() > 2 {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::Machine;

    const NAME: &str = "adalovelace";

    #[test]
    fn a_chosen_password_is_long_enough_and_not_a_common_one() {
        let too_long = "x1y2z3".repeat(200);
        for bad in [
            "short",
            "Password1",
            "ＰＡＳＳＷＯＲＤ１",
            "P@ssw0rd",
            "QWERTYUIOP",
            "aaaaaaaaaa",
            "abababababab",
            "AdaLovelace",
            "ａｄａｌｏｖｅｌａｃｅ",
            &too_long,
        ] {
            assert!(fault(bad, NAME, &[], &Machine).is_some(), "{bad}");
        }
        for good in [
            "correct horse",
            "ключ от дома",
            "        x y",
            "🔑🔒🗝️🔐🧥🎫🏠🚪",
            "password1, with more behind it",
        ] {
            assert_eq!(fault(good, NAME, &[], &Machine), None, "{good}");
        }
    }

    #[test]
    fn no_password_holds_a_forbidden_word_in_any_case_or_form() {
        let words = ["Acme", "Straßenbahn", "Über"].map(|word| fold(word, &Machine));
        for bad in
            ["acme2026", "my ACME password", "ｘｘａｃｍｅｘｘ", "die STRAßENBAHN kommt", "u\u{308}bermorgen"]
        {
            assert!(fault(bad, NAME, &words, &Machine).is_some(), "{bad}");
        }
        for good in ["a c m e 2026", "correct horse", "ubermorgen"] {
            assert_eq!(fault(good, NAME, &words, &Machine), None, "{good}");
        }
    }

    #[test]
    fn the_list_holds_the_3000_most_common_ones_as_they_are_looked_up() {
        let common: Vec<&str> = COMMON.lines().collect();
        assert!(common.len() >= 3000 && common.is_sorted(), "{}", common.len());
        for password in common {
            assert!(password.chars().count() >= MIN_LENGTH, "{password}");
            assert_eq!(fold(password, &Machine), password);
            let shouted = password.to_uppercase();
            assert!(fault(&shouted, NAME, &[], &Machine).is_some(), "{shouted}");
        }
    }
}
