//! Opaque page cursors: a position in a list, encoded for the link to the next page.
//!
//! A cursor is valid only for the query it was created for, so it contains a digest of that query.
//! It is not signed: the query alone decides which rows the caller may see.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A hash of the text that distinguishes a query from others.
#[must_use]
pub(super) fn digest(query: &str) -> String {
    URL_SAFE_NO_PAD.encode(&blake3::hash(query.as_bytes()).as_bytes()[..12])
}

/// Encodes a position.
///
/// # Panics
/// Panics if the position cannot be serialized as JSON.
#[must_use]
pub(super) fn write(digest: &str, position: &impl Serialize) -> String {
    let json = serde_json::to_vec(&(digest, position)).expect("a position serializes as JSON");
    URL_SAFE_NO_PAD.encode(json)
}

/// Decodes a position. Returns `None` if the cursor is malformed or belongs to another query.
#[must_use]
pub(super) fn read<Position: DeserializeOwned>(digest: &str, cursor: &str) -> Option<Position> {
    let json = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (found, position): (String, Position) = serde_json::from_slice(&json).ok()?;
    (found == digest).then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_is_valid_only_for_its_own_query() {
        let digest = digest("organization x00g8");
        let text = write(&digest, &(5, "89440001"));
        assert_eq!(read(&digest, &text), Some((5, "89440001".to_owned())));
        assert_eq!(
            read::<(i64, String)>(&super::digest("organization x00g9"), &text),
            None
        );
        assert_eq!(read::<(i64, i64)>(&digest, &text), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            prop_assert_eq!(read::<(i64, String)>("digest", &text), None);
        }
    }
}
