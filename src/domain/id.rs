//! Identifiers as they are written outside: text, because an ICCID of 19 or 20 digits overflows 64 bits.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most characters an identifier may have. An ICCID has 20 at most.
const MAX_LENGTH: usize = 64;

/// Why a text is no identifier.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{value}' is not an identifier: 1 to {MAX_LENGTH} visible ASCII characters, without '/', ',' or quotes"
)]
pub struct InvalidId {
    value: String,
}

/// Accepts what can stand in a path, a CSV field and a log line without being quoted.
fn parse(text: &str) -> Result<String, InvalidId> {
    let fits = (1..=MAX_LENGTH).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"/,\"'".contains(&byte));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(InvalidId {
            value: text.chars().take(MAX_LENGTH).collect(),
        })
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses the identifier.
            ///
            /// # Errors
            /// The text is empty, too long, or holds characters that an identifier cannot.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

identifier! {
    /// A SIM card by its ICCID, the number printed on it.
    SimCardId
}
identifier! {
    /// An organization, the owner of SIM cards.
    OrganizationId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iccid_of_twenty_digits_is_an_identifier() {
        let id = SimCardId::parse("89440000000000000001").unwrap();
        assert_eq!(id.as_str(), "89440000000000000001");
    }

    #[test]
    fn what_would_need_quoting_is_refused() {
        for text in [
            "",
            " ",
            "a b",
            "a/b",
            "a,b",
            "a\"b",
            "ä",
            "a\n",
            &"9".repeat(65),
        ] {
            assert!(
                OrganizationId::parse(text).is_err(),
                "{text:?} was accepted"
            );
        }
    }
}
