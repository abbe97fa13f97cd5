//! A batch on its way from the reader thread to the database.

use bytes::Bytes;

use crate::db::BatchEnd;

/// How many batches the channel between the reader thread and the database holds. It bounds memory:
/// a batch has up to 32 MiB.
pub(super) const BATCHES_IN_FLIGHT: usize = 1;

/// The records of a batch, and what its transaction stores besides them. It is kept until the
/// commit, to be sent again if the connection breaks.
pub(super) struct Batch {
    /// Encoded usage records, sorted.
    pub tuples: Bytes,
    pub end: BatchEnd,
}
