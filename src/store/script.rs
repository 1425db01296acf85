//! A script that the store runs often: it keeps scripts, and is told their names alone.

use sha1::{Digest, Sha1};

/// A script in Lua, and the name under which the store keeps it.
#[derive(Debug)]
pub struct Script {
    pub(crate) text: &'static str,
    /// The SHA-1 of its text, in hexadecimal.
    pub(crate) name: String,
}

impl Script {
    /// The script of this text.
    pub fn new(text: &'static str) -> Self {
        Self { text, name: sha1(text) }
    }
}

/// The SHA-1 of a text, in hexadecimal, as the store makes it.
pub(crate) fn sha1(text: &str) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|digit| DIGITS.get(usize::from(digit)).copied());
    Sha1::digest(text).into_iter().flat_map(digits).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_store() {
        // What SCRIPT LOAD replies.
        assert_eq!(Script::new("return 1").name, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    }
}
