//! Public identifiers. They are text, because an ICCID of 20 digits does not fit in 64 bits.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The maximum number of characters of an identifier. An ICCID has at most 20.
const MAX_LENGTH: usize = 64;

/// A text that is not a valid identifier.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{value}' is not an identifier; use 1 to {MAX_LENGTH} visible ASCII characters without '/', ',' or quotes, \
     but not '.' or '..'"
)]
pub struct InvalidId {
    value: String,
}

/// Accepts text that needs no quoting in a path, a CSV field or a log line. Clients remove `.` and `..`
/// from paths, however they are escaped.
fn parse(text: &str) -> Result<String, InvalidId> {
    let fits = (1..=MAX_LENGTH).contains(&text.len())
        && ![".", ".."].contains(&text)
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
            /// Returns an error if the text is empty, too long, or contains a forbidden character.
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
    /// An organization, which owns SIM cards.
    OrganizationId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iccid_of_twenty_digits_is_accepted() {
        let id = SimCardId::parse("89440000000000000001").unwrap();
        assert_eq!(id.as_str(), "89440000000000000001");
    }

    #[test]
    fn text_that_needs_quoting_is_refused() {
        for text in [
            "",
            ".",
            "..",
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
