//! Places in a list, as one answer gives them out and the next request brings them back.
//!
//! A place is of use for its own question alone, so it carries a digest of that. It is not signed: what it lets
//! through is bounded by the question, never by the place.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Says which question an answer belongs to: a hash of whatever makes it differ from another.
#[must_use]
pub fn digest(question: &str) -> String {
    URL_SAFE_NO_PAD.encode(&blake3::hash(question.as_bytes()).as_bytes()[..12])
}

/// Writes a place.
///
/// # Panics
/// The place cannot be written as JSON.
#[must_use]
pub fn write(digest: &str, place: &impl Serialize) -> String {
    URL_SAFE_NO_PAD
        .encode(serde_json::to_vec(&(digest, place)).expect("a place is numbers and texts"))
}

/// Reads a place; `None` where it is none, or one of another question.
#[must_use]
pub fn read<Place: DeserializeOwned>(digest: &str, text: &str) -> Option<Place> {
    let json = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (found, place): (String, Place) = serde_json::from_slice(&json).ok()?;
    (found == digest).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_place_is_read_back_for_its_own_question_alone() {
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
