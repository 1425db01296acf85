//! The document as the Worker holds it: what it repeats stands in it once. That is a quarter of its size, and 0.8 KB less in
//! the Worker compressed, which has no room to give away.
//!
//! Lines of text: the document, and then its pieces. A control character stands for a piece by its number; the first are not
//! in the file, but of the configuration.

/// The characters that stand for pieces begin here. None is white space, none is ever in the document, which is ASCII.
const FIRST: u8 = 0x0e;

/// The document. `configured`: the first pieces.
pub(super) fn unpack(packed: &str, configured: [&str; 2]) -> String {
    let mut unpacked = String::new();
    expand(packed, 0, configured, &mut unpacked);
    unpacked
}

/// Writes a line. A piece holds none but those before it, so that this ends.
fn expand(packed: &str, line: usize, configured: [&str; 2], unpacked: &mut String) {
    for byte in packed.split('\n').nth(line).unwrap_or_default().bytes() {
        match byte.wrapping_sub(FIRST) {
            0 => unpacked.push_str(configured[0]),
            1 => unpacked.push_str(configured[1]),
            line @ 2..=17 => expand(packed, usize::from(line) - 1, configured, unpacked),
            _ => unpacked.push(char::from(byte)),
        }
    }
}

/// What [`unpack`] unpacks. `configured`: texts of the document that the configuration replaces, each there once and between
/// quotes.
#[cfg(test)]
pub(super) fn pack(document: &str, configured: [&str; 2]) -> String {
    assert!(document.is_ascii());
    let mut document = document.to_owned();
    let mut pieces: Vec<String> = Vec::new();
    let mut characters = char::from(FIRST)..=MAX;
    for (text, character) in configured.iter().zip(&mut characters) {
        let quoted = format!("\"{text}\"");
        assert_eq!(document.matches(&quoted).count(), 1, "{quoted}");
        document = document.replace(&quoted, &format!("\"{character}\""));
    }
    for character in characters {
        let Some(piece) = most_repeated(&document) else { break };
        document = document.replace(&piece, &character.to_string());
        pieces.push(piece);
    }
    std::iter::once(document).chain(pieces).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
const MAX: char = '\u{1f}';

/// The text whose repetitions take the most room.
#[cfg(test)]
fn most_repeated(document: &str) -> Option<String> {
    use std::{cmp::Reverse, collections::HashMap};
    let mut best = None;
    for length in 5..=64 {
        let mut counts: HashMap<&[u8], usize> = HashMap::new();
        for window in document.as_bytes().windows(length) {
            *counts.entry(window).or_default() += 1;
        }
        for (window, count) in counts {
            // The order of a map is chance: of two that save the same the first in the alphabet.
            best = best.max((count > 2).then_some(((count - 1) * (length - 1), Reverse(window))));
        }
    }
    best.map(|(_, Reverse(window))| String::from_utf8_lossy(window).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let document = format!("{{\"name\":\"x\",\"url\":\"y\"{}}}", ",\"as often as not\":1".repeat(9));
        let packed = pack(&document, ["x", "y"]);
        assert!(packed.len() < document.len(), "{packed}");
        assert_eq!(unpack(&packed, ["x", "y"]), document);
        assert_eq!(unpack(&packed, ["z", "y"]), document.replace("\"x\"", "\"z\""));
    }
}
