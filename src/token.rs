//! API tokens: a random text that is shown once, and its hash, which is all that is stored.

use std::fmt::{self, Write as _};

use constant_time_eq::constant_time_eq_32;
use sha2::{Digest as _, Sha256};

/// The prefix by which people and secret scanners recognize a token.
const PREFIX: &str = "simusage_";

/// A token. Only [`Token::reveal`] gives its text.
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

impl Token {
    /// Generates a token with 256 random bits from the operating system.
    ///
    /// # Errors
    /// Returns an error if the operating system provides no random bytes.
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

    /// The text, to be shown once to its user.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The hash to store and look up.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

/// The SHA-256 of a token's text. Comparison takes constant time.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes any text, whether or not it is a valid token.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// All 32 bytes, for the database.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first 8 bytes, as a lookup key. Looking it up need not take constant time: a text whose
    /// hash begins alike still fails the comparison of the whole hash.
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
    fn tokens_have_256_bits_and_differ() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        let digits = one.reveal().strip_prefix(PREFIX).unwrap();
        assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one.reveal(), other.reveal());
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.hash(), TokenHash::of(one.reveal()));
    }

    #[test]
    fn debug_output_shows_neither_text_nor_hash() {
        let token = Token::generate().unwrap();
        assert_eq!(format!("{token:?} {:?}", token.hash()), "… …");
    }
}
