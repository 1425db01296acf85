//! Names that were meant and misspelt.

/// The candidate that is most like `wanted`, if one is like it: the same but for case, `_` and `-`, or a slip of the
/// fingers away from it. `None` also for the name itself.
pub(crate) fn closest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted_letters = letters(wanted);
    let most = (wanted_letters.len() / 4).max(1);
    let distance = |candidate| strsim::osa_distance(&wanted_letters, &letters(candidate));
    let others = candidates.into_iter().filter(|candidate| *candidate != wanted);
    // A candidate may be as long as a caller likes; one that is much longer is not meant.
    let near = others.filter(|candidate| candidate.len() <= 2 * wanted.len() + 4);
    let near = near.map(|candidate| (distance(candidate), candidate));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, candidate)| candidate)
}

fn letters(name: &str) -> String {
    name.chars()
        .filter(|letter| !matches!(letter, '_' | '-'))
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognized_and_another_word_is_not() {
        for (wanted, candidates, expected) in [
            ("CLOAKROOM", &["DB", "CLOAKROM"][..], Some("CLOAKROM")),
            ("CLOAKROOM", &["cloakroom"], Some("cloakroom")),
            ("CLOAKROOM", &["CLOAK_ROOM", "CLOAKROM"], Some("CLOAK_ROOM")),
            ("CLOAKROOM", &["CLOAKROMO"], Some("CLOAKROMO")),
            ("CLOAKROOM", &["CLASSROOM_", "ROOM", "CLOAK", ""], None),
            ("UPSTASH_REDIS_REST_URL", &["UPSTASH_REDIS_URL", "DATABASE_URL"], Some("UPSTASH_REDIS_URL")),
            ("SESSION_SECRET", &["SESSION_SECRETS", "SECRET"], Some("SESSION_SECRETS")),
            ("ADMIN_TOKEN", &["API_TOKEN", "ADMIN_TOKEN"], None),
            ("same_site", &["sameSite"], Some("sameSite")),
            ("idle", &["idel", "absolute"], Some("idel")),
            ("ip", &["user", "session"], None),
        ] {
            assert_eq!(closest(wanted, candidates.iter().copied()), expected, "{wanted} {candidates:?}");
        }
        let long = "x".repeat(1_000_000);
        assert_eq!(closest("idle", [long.as_str()]), None);
    }
}
