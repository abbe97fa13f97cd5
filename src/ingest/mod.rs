//! The way in: usage records from files and standard input to the usage table, by binary COPY.
//!
//! ```text
//! recognise ─> lines ─> parse ─> stamp (SIM card, organization) ─> encode ═ bounded channel ═> COPY, commit ─> refresh
//!   async      └──────────────── one thread ─────────────────────┘                         └──── async ────┘
//! ```
//!
//! A record that cannot be stored is rejected: it goes to `rejected_records` in the transaction of its batch,
//! so at every commit the records read are those stored plus those rejected. The same transaction moves the
//! source's position in the ledger from where the batch began to where it ends, or does not happen: so a record
//! is stored once, however often a run is killed, cut off or repeated, and however many run at once. Nothing here
//! speaks SQL; that is [`crate::db`]'s.

mod batch_builder;
mod csv_line;
mod dry_run;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod hours;
mod identity;
mod inventory;
mod inventory_file;
mod kafka;
mod lines;
mod options;
mod parallel_copy;
mod parse;
mod pending_batch;
mod progress;
mod reader;
mod record_encoder;
mod refresher;
mod reject;
mod replay;
mod run;
mod session;
mod source;
mod store;
mod summary;

pub use inventory_file::read_inventory;
pub use kafka::Producer;
pub use options::{Options, Topic};
pub use progress::Counters;
pub use reject::Reason;
pub use run::ingest;
pub use source::{Format, Source};
pub use summary::{SimCards, SourceStatus, SourceSummary, Summary};
