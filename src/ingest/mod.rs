//! Ingests usage records from files, standard input and Kafka.
//!
//! ```text
//! source ─> lines ─> batch_builder ═══════════════> parallel_copy ─> store ─> closer
//! └──── reader, one thread ──────┘      batch,      └──────────── async ────────────┘
//!                                  bounded channel
//! ```
//!
//! `run` drives the stages. A file is read once (`scan`) to verify it and to take its
//! `fingerprint`; `identity` then finds it in the ledger and skips what is stored.
//! `batch_builder` parses (`parse`) and encodes (`record_encoder`) each record, or rejects it.
//! `session` reconnects after outages. `kafka` has a consumer in place of the reader. `dry_run`
//! stops before the database, and `replay` retries rejected records.
//!
//! A record that cannot be stored goes to `rejected_records` in the transaction of its batch, so at
//! every commit the records read are those stored plus those rejected. The same transaction moves
//! the source's position in the ledger from the start of the batch to its end, and fails if another
//! process has moved it. So each record is stored exactly once, even if runs are killed, repeated
//! or concurrent. All SQL is in [`crate::db`].

mod batch;
mod batch_builder;
mod block_hashes;
mod closer;
mod compression;
mod csv_line;
mod days;
mod dry_run;
mod failure;
mod fingerprint;
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod inventory;
mod inventory_file;
mod kafka;
mod line_hash;
mod lines;
mod options;
mod parallel_copy;
mod parse;
mod progress;
mod reader;
mod record_encoder;
mod reject;
mod replay;
mod run;
mod scan;
mod session;
mod source;
mod store;
mod summary;

pub use inventory_file::read_inventory;
pub use kafka::Producer;
pub use options::{IfChanged, Options, Topic};
pub use parse::Format;
pub use progress::Counters;
pub use reject::Reason;
pub use run::ingest;
pub use source::Source;
pub use summary::{SimCards, SourceStatus, SourceSummary, Summary};
