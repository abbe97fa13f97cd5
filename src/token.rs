//! What says who asks: a random text that is shown once, and the hash that it is known by from then on.

use std::fmt::{self, Write as _};

use constant_time_eq::constant_time_eq_32;
use sha2::{Digest as _, Sha256};

/// How a token begins, so that people and scanners of leaked secrets recognise one.
const PREFIX: &str = "simusage_";

/// A token's text. It is printed by [`Token::reveal`] alone.
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

impl Token {
    /// A token that nobody can guess: 256 bits from the operating system.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(Self(random.iter().fold(
            PREFIX.to_owned(),
            |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            },
        )))
    }

    /// The text, for the one who is to use it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The hash that it is known by.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

/// SHA-256 of a token's text. Comparing two takes as long wherever they differ.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a text, whether or not it is a token.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// All of it, for the database.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its first bytes, to look it up by. They may be compared at any pace: who could choose texts by the beginning
    /// of their hash would still have to hit all of it.
    #[must_use]
    pub fn beginning(&self) -> u64 {
        self.0
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl TryFrom<&[u8]> for TokenHash {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq_32(&self.0, &other.0)
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_256_bits_and_differs_from_every_other() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        let digits = one.reveal().strip_prefix(PREFIX).unwrap();
        assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one.reveal(), other.reveal());
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.hash(), TokenHash::of(one.reveal()));
    }

    #[test]
    fn neither_text_nor_hash_is_ever_printed() {
        let token = Token::generate().unwrap();
        assert_eq!(format!("{token:?} {:?}", token.hash()), "… …");
    }
}
