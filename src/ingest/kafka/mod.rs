//! Ingests usage records from a Kafka topic, one record per message, as a member of a consumer
//! group.
//!
//! ```text
//! consumer ─> batch_builder per partition ═> writer ─> parallel_copy ─> store ─> closer
//! └──────────── one thread ─────────────┘  channel  └───────────── async ─────────────┘
//! ```
//!
//! Each partition is a source in the ledger, and its position is the offset of the next message.
//! When the group assigns a partition, reading starts at the position in the ledger, unless its
//! messages were deleted or replaced meanwhile (`start.rs`). When the group revokes one, its records
//! are committed first. If two members ever read the same partition, only
//! one of them can move it in the ledger; the other leaves the group and rejoins it. Offsets are
//! also committed to Kafka, after the records, but only for lag monitoring: nothing here reads
//! them.

mod assignment;
mod brokers;
mod channel;
mod consumer;
mod last_read;
mod producer;
mod start;
mod topic;
mod topic_id;
mod writer;

pub(super) use channel::SharedState;
pub use producer::Producer;
pub(super) use topic::store_topic;
pub(super) use writer::TopicWriter;
