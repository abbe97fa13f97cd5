//! The last message that was read of a partition, by which the next run recognises the partition.

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

/// Longer messages are hashed at once, and others only when they turn out to be the last of a batch.
const MAX_COPIED_BYTES: usize = 4096;

/// The last message that was read of a partition.
pub(super) struct LastRead {
    /// The offset after it.
    pub end: i64,
    hash: Option<[u8; 32]>,
    /// The message, unless it is hashed.
    bytes: Vec<u8>,
}

impl LastRead {
    /// A message that an earlier run has read; its hash is `None` if it is unknown.
    pub fn known(end: i64, hash: Option<[u8; 32]>) -> Self {
        Self {
            end,
            hash,
            bytes: vec![],
        }
    }

    pub fn set(&mut self, message: &BorrowedMessage<'_>) {
        self.end = message.offset() + 1;
        self.bytes.clear();
        if message.payload_len() + message.key_len() > MAX_COPIED_BYTES {
            self.hash = Some(hash(message));
        } else {
            self.hash = None;
            visit(message, |bytes| self.bytes.extend_from_slice(bytes));
        }
    }

    /// Its hash, if there is such a message.
    pub fn hash(&mut self) -> Option<[u8; 32]> {
        if self.hash.is_none() && !self.bytes.is_empty() {
            self.hash = Some(*blake3::hash(&self.bytes).as_bytes());
        }
        self.hash
    }
}

/// The hash of a message with its key and timestamp.
pub(super) fn hash(message: &BorrowedMessage<'_>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    visit(message, |bytes| {
        hasher.update(bytes);
    });
    *hasher.finalize().as_bytes()
}

/// Visits what identifies a message: its timestamp, and key and payload after their lengths.
fn visit(message: &BorrowedMessage<'_>, mut add: impl FnMut(&[u8])) {
    let time = message.timestamp().to_millis().unwrap_or_default();
    add(&time.to_le_bytes());
    for part in [message.key(), message.payload()] {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        add(&length.to_le_bytes());
        add(part.unwrap_or_default());
    }
}
