//! The way in: usage records from files and standard input to the usage table, by binary COPY.
//!
//! ```text
//! lines ─> parse ─> stamp (SIM card, organization) ─> encode ═ bounded channel ═> COPY, commit ─> refresh
//! └──────────────── one thread ───────────────────────────┘                     └──── async ────┘
//! ```
//!
//! A record that cannot be stored is rejected: it goes to `rejected_records` in the transaction of its batch,
//! so at every commit the records read are those stored plus those rejected. Nothing here speaks SQL; that is
//! [`crate::db`]'s.

mod batch;
mod csv_line;
mod hours;
mod inventory_file;
mod lines;
mod parse;
mod progress;
mod reject;
mod run;
mod source;

pub use inventory_file::read_inventory;
pub use reject::Reason;
pub use run::{Options, Summary, ingest};
pub use source::{Format, Source};
