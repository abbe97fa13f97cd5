//! A batch on its way from the reader thread to the database.

use bytes::Bytes;

use crate::db::BatchEnd;

/// Capacity of the channel between the reader thread and the database. Together with the size of a
/// piece, it bounds memory.
pub(super) const PIECES_IN_FLIGHT: usize = 16;

/// A message from the reader thread. A batch is any number of pieces, then an end.
pub(super) enum Message {
    /// Encoded usage records.
    Tuples(Bytes),
    /// The batch is complete.
    End(BatchEnd),
}

/// The part of a batch that has been received. It is kept until the commit, to be sent again if the
/// connection breaks.
#[derive(Default)]
pub(super) struct PartialBatch {
    pub pieces: Vec<Bytes>,
    /// `None` while pieces are still to come.
    pub end: Option<BatchEnd>,
}

impl PartialBatch {
    /// Adds a message; `None` if the channel is closed. Returns the piece to send, or `None` if no
    /// more pieces will come.
    pub fn add(&mut self, message: Option<Message>) -> Option<Bytes> {
        match message? {
            Message::Tuples(tuples) => {
                self.pieces.push(tuples.clone());
                Some(tuples)
            }
            Message::End(end) => {
                self.end = Some(end);
                None
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.end.is_none()
    }
}
