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
        let name = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, name }
    }
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
