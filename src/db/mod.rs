//! Everything that talks to TimescaleDB. The only module that uses tokio-postgres, except for
//! parsing the database URL in the settings.

mod advice;
mod aggregates;
mod binary_format;
mod connect;
mod copy;
mod error;
mod feeds;
mod freshness;
mod functions;
mod inventory;
mod inventory_changes;
mod inventory_index;
pub mod migrate;
mod partitions;
mod pool;
mod pooling;
mod postings;
pub mod queries;
mod reader;
mod rejected;
mod replay;
mod retention;
mod settings;
mod sources;
mod tls;
pub mod tokens;

pub use deadpool_postgres::Client;

pub use connect::{Connection, connect, connect_additional};
pub use copy::{
    BatchEnd, BatchWriter, RecordDays, RejectedRecord, TUPLE_BYTES, encode_usage_record, sorted,
};
pub use error::{Cause, StorageError, WriteError, with_causes};
pub use feeds::{Feed, feeds};
pub use freshness::FreshnessLoader;
pub use inventory::{InventoryDifference, inventory_differences, store_inventory};
pub use inventory_index::{InventoryIndex, LookupError, NewestIds, RecordIds, inventory_version};
pub use partitions::{KnownPartition, enter_partition, move_partition, set_partition_topic};
pub use pool::{Lease, Pool, PoolStatus, Streaming};
pub use pooling::{connect_first, pool_mode};
pub use postings::{
    OpenPeriods, close_page, close_period, drop_old, merge_span, open_chunks, open_periods,
    prepare_closing,
};
pub use rejected::delete_old_rejected;
pub use replay::{Replay, StillRejected, TakenRecord, count_rejected};
pub use retention::Retention;
pub use sources::{
    Checkpoint, Claim, FileRegistration, FoundRecord, KnownSource, Outcome, SimilarFile,
    SourceIdentity, StoredFingerprint, claim_source, enter_source, find_whole_file, lost_from,
    outcome, release_source, remove_run, source_counts,
};
