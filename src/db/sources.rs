//! The ledger of ingest, `ingest_sources`: the sources, and how much of each is stored.
//!
//! This module finds, adds and checks sources. [`super::BatchWriter`] advances their positions.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row};

use super::error::WriteError;

/// How many bytes at its start identify a file, unless the whole file was shorter when first seen.
pub const HEAD_BYTES: usize = 4_096;

/// What identifies a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceIdentity {
    /// A file, by its first bytes.
    File {
        /// How many bytes are hashed.
        head_bytes: usize,
        /// Their hash, in hexadecimal.
        hash: String,
    },
    /// A stream, by its name.
    Stream(String),
    /// The standard input of one run, by the run's number.
    Run(i64),
    /// A partition of a Kafka topic, for one consumer group.
    Partition {
        /// The identifier of the cluster.
        cluster: String,
        /// The name of the consumer group.
        group: String,
        /// The name of the topic.
        topic: String,
        /// The number of the partition.
        partition: i32,
    },
}

impl SourceIdentity {
    fn kind(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Stream(_) => "stream",
            Self::Run(_) => "run",
            Self::Partition { .. } => "kafka",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::File { head_bytes, hash } => format!("{head_bytes}-{hash}"),
            Self::Stream(name) => name.clone(),
            Self::Run(number) => number.to_string(),
            // Unambiguous, because clusters and topics have no slash in their names.
            Self::Partition {
                cluster,
                group,
                topic,
                partition,
            } => format!("{cluster}/{topic}/{partition}/{group}"),
        }
    }

    fn head_bytes(&self) -> Option<i32> {
        match self {
            Self::File { head_bytes, .. } => i32::try_from(*head_bytes).ok(),
            _ => None,
        }
    }
}

/// A position between two records of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The offset of the next byte.
    pub position: i64,
    /// The number of lines that end before it.
    pub line: i64,
    /// BLAKE3 of all bytes before it; `None` if the source cannot be read again.
    pub prefix_hash: Option<[u8; 32]>,
}

/// A source in the ledger.
#[derive(Debug, Clone)]
pub struct KnownSource {
    /// Its key in `ingest_sources`.
    pub id: i64,
    /// How many bytes identify it; `None` unless it is a file.
    pub head_bytes: Option<i32>,
    /// The name it was last read under.
    pub name: String,
    /// The offset of the next byte to read.
    pub position: i64,
    /// The number of lines that end before it.
    pub line: i64,
    /// BLAKE3 of all bytes before it; empty while nothing is stored.
    pub prefix_hash: Vec<u8>,
    /// How many batches have advanced it.
    pub batches: i64,
    /// When it was last advanced.
    pub updated_at: DateTime<Utc>,
}

impl KnownSource {
    /// A source that is not in the ledger.
    #[must_use]
    pub fn unknown(name: &str) -> Self {
        Self {
            id: 0,
            head_bytes: None,
            name: name.to_owned(),
            position: 0,
            line: 0,
            prefix_hash: vec![],
            batches: 0,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }
}

impl From<Row> for KnownSource {
    fn from(row: Row) -> Self {
        Self {
            id: row.get("id"),
            head_bytes: row.get("head_bytes"),
            name: row.get("name"),
            position: row.get("position"),
            line: row.get("line"),
            prefix_hash: row
                .get::<_, Option<Vec<u8>>>("prefix_hash")
                .unwrap_or_default(),
            batches: row.get("batches"),
            updated_at: row.get("updated_at"),
        }
    }
}

/// The state that a source must have in the ledger for this run to advance it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The key of the source.
    pub id: i64,
    /// Whether a later run can read the source again.
    pub resumable: bool,
    /// The position up to which the source is stored.
    pub position: i64,
    /// How many batches have advanced it.
    pub batches: i64,
    /// The number of this run.
    pub writer: i64,
    /// Whether this run has advanced it.
    pub moved: bool,
    /// The name of the source.
    pub name: std::sync::Arc<str>,
}

impl Claim {
    /// The claim of the run `writer` on a source, at its position in the ledger.
    #[must_use]
    pub fn new(
        known: &KnownSource,
        resumable: bool,
        writer: i64,
        name: std::sync::Arc<str>,
    ) -> Self {
        let KnownSource {
            id,
            position,
            batches,
            ..
        } = *known;
        Self {
            id,
            resumable,
            position,
            batches,
            writer,
            moved: false,
            name,
        }
    }

    /// Updates the claim after a batch that ends at `position` has been stored.
    pub fn advance(&mut self, position: i64) {
        self.position = position;
        self.batches += 1;
        self.moved = true;
    }
}

/// The outcome of a batch, if the connection broke during its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The batch is stored.
    Committed,
    /// The batch is not stored, and the source is still at its start.
    RolledBack,
    /// The source is at another position: another process has advanced it.
    Overtaken,
}

/// All lengths of the first bytes that identify files.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn head_lengths(client: &Client) -> Result<Vec<usize>, WriteError> {
    let rows = client
        .query(include_str!("../../sql/ingest/head_lengths.sql"), &[])
        .await?;
    let mut lengths: Vec<usize> = rows
        .iter()
        .filter_map(|row| usize::try_from(row.get::<_, i32>(0)).ok())
        .collect();
    lengths.push(HEAD_BYTES);
    Ok(lengths)
}

/// Finds a file in the ledger by any of its possible identities. The longest match wins.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn find_file(
    client: &Client,
    candidates: &[SourceIdentity],
) -> Result<Option<KnownSource>, WriteError> {
    let identities: Vec<String> = candidates.iter().map(SourceIdentity::text).collect();
    let row = client
        .query_opt(
            include_str!("../../sql/ingest/find_file.sql"),
            &[&identities],
        )
        .await?;
    Ok(row.map(KnownSource::from))
}

/// Finds the source of an identity, and adds it if it does not exist.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement.
pub async fn enter_source(
    client: &Client,
    identity: &SourceIdentity,
    name: &str,
) -> Result<KnownSource, WriteError> {
    let (kind, text, head_bytes) = (identity.kind(), identity.text(), identity.head_bytes());
    let add = include_str!("../../sql/ingest/add_source.sql");
    client
        .execute(add, &[&kind, &text, &head_bytes, &name])
        .await?;
    let row = client
        .query_one(
            include_str!("../../sql/ingest/find_source.sql"),
            &[&kind, &text],
        )
        .await?;
    Ok(row.into())
}

/// Changes the identity of a source of which nothing is stored.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement, or if another process
/// has advanced the source.
pub async fn rename_source(
    client: &Client,
    id: i64,
    identity: &SourceIdentity,
) -> Result<(), WriteError> {
    let rename = include_str!("../../sql/ingest/rename_source.sql");
    match client
        .execute(rename, &[&id, &identity.text(), &identity.head_bytes()])
        .await?
    {
        1 => Ok(()),
        _ => Err(WriteError::Overtaken),
    }
}

/// The outcome of the batch that ends at `position`. Waits for its transaction if that is still
/// running.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn outcome(client: &Client, claim: &Claim, position: i64) -> Result<Outcome, WriteError> {
    let row = client
        .query_opt(
            include_str!("../../sql/ingest/lock_source.sql"),
            &[&claim.id],
        )
        .await?;
    let found: Option<(i64, i64, i64)> =
        row.map(|row| (row.get("position"), row.get("batches"), row.get("writer")));
    Ok(match found {
        Some(found) if found == (position, claim.batches + 1, claim.writer) => Outcome::Committed,
        Some((position, batches, _)) if (position, batches) == (claim.position, claim.batches) => {
            Outcome::RolledBack
        }
        _ => Outcome::Overtaken,
    })
}

/// Removes the source of a run that has ended.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn remove_run(client: &Client, claim: &Claim) -> Result<(), WriteError> {
    client
        .execute(
            include_str!("../../sql/ingest/remove_run.sql"),
            &[&claim.id],
        )
        .await?;
    Ok(())
}
