//! Opaque page cursors: a position in a list, encoded for the link to the next page.
//!
//! A cursor is valid only for the query it was created for, so it contains a digest of that query.
//! A keyed hash authenticates it, so that clients cannot forge positions.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use constant_time_eq::constant_time_eq_16;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::db::tokens::CursorKey;

/// The length of the keyed hash, with which a cursor starts.
const HASH_BYTES: usize = 16;

/// A hash of the text that distinguishes a query from others.
#[must_use]
pub(super) fn digest(query: &str) -> String {
    URL_SAFE_NO_PAD.encode(&blake3::hash(query.as_bytes()).as_bytes()[..12])
}

/// Why a cursor is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CursorError {
    /// No server with this key created it.
    Forged,
    /// It belongs to another query, or was created by another version.
    OtherList,
}

/// Identifies a list, and reads and writes its cursors. Displays its digest.
#[derive(Debug, Clone)]
pub(super) struct ListId {
    digest: String,
    key: CursorKey,
}

impl ListId {
    /// The list of the query that `query` describes.
    #[must_use]
    pub fn new(query: &str, key: CursorKey) -> Self {
        let digest = digest(query);
        Self { digest, key }
    }

    /// Encodes a position.
    ///
    /// # Panics
    /// Panics if the position cannot be serialized as JSON.
    #[must_use]
    pub fn write_cursor(&self, position: &impl Serialize) -> String {
        let json = serde_json::to_vec(&(&self.digest, position));
        let json = json.expect("a position serializes as JSON");
        let mut cursor = self.hash(&json).to_vec();
        cursor.extend(json);
        URL_SAFE_NO_PAD.encode(cursor)
    }

    /// Decodes a position.
    ///
    /// # Errors
    /// Returns an error if the cursor is not one of this list.
    pub fn read_cursor<Position: DeserializeOwned>(
        &self,
        cursor: &str,
    ) -> Result<Position, CursorError> {
        let cursor = URL_SAFE_NO_PAD.decode(cursor);
        let cursor = cursor.map_err(|_| CursorError::Forged)?;
        let (hash, json) = cursor
            .split_first_chunk::<HASH_BYTES>()
            .ok_or(CursorError::Forged)?;
        if !constant_time_eq_16(hash, &self.hash(json)) {
            return Err(CursorError::Forged);
        }
        match serde_json::from_slice::<(String, Position)>(json) {
            Ok((digest, position)) if digest == self.digest => Ok(position),
            _ => Err(CursorError::OtherList),
        }
    }

    fn hash(&self, json: &[u8]) -> [u8; HASH_BYTES] {
        let hash = blake3::keyed_hash(&self.key.0, json);
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}

impl fmt::Display for ListId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(query: &str, key: u8) -> ListId {
        ListId::new(query, CursorKey([key; 32]))
    }

    #[test]
    fn a_cursor_is_valid_only_for_its_own_query_and_key() {
        let own = list("organization x00g8", 1);
        let text = own.write_cursor(&(5, "89440001"));
        let read = |list: &ListId| list.read_cursor::<(i64, String)>(&text);
        assert_eq!(read(&own), Ok((5, "89440001".to_owned())));
        let other = list("organization x00g9", 1);
        assert_eq!(read(&other), Err(CursorError::OtherList));
        assert_eq!(
            own.read_cursor::<(i64, i64)>(&text),
            Err(CursorError::OtherList)
        );
        let other = list("organization x00g8", 2);
        assert_eq!(read(&other), Err(CursorError::Forged));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let read = list("x", 1).read_cursor::<(i64, String)>(&text);
            prop_assert_eq!(read, Err(CursorError::Forged));
        }

        #[test]
        fn a_changed_cursor_is_forged(index in 0_usize..200, flipped in 1_u8..=255) {
            let list = list("x", 1);
            let mut cursor = URL_SAFE_NO_PAD.decode(list.write_cursor(&(5, "1"))).unwrap();
            let index = index % cursor.len();
            cursor[index] ^= flipped;
            let read = list.read_cursor::<(i64, String)>(&URL_SAFE_NO_PAD.encode(cursor));
            prop_assert_eq!(read, Err(CursorError::Forged));
        }
    }
}
