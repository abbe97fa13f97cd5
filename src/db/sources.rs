//! The ledger of ingest, `ingest_sources`: the sources, and how much of each is stored.
//!
//! This module finds, adds and checks sources. [`super::BatchWriter`] advances their positions.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, GenericClient, Row, Transaction};

use super::connect::Connection;
use super::error::WriteError;

/// What identifies a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceIdentity {
    /// A file, by the number and hash of its lines when first seen.
    File(String),
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
            Self::File(_) => "file",
            Self::Stream(_) => "stream",
            Self::Run(_) => "run",
            Self::Partition { .. } => "kafka",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::File(name) | Self::Stream(name) => name.clone(),
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
    /// How many of its records are stored, in all runs.
    pub stored: i64,
    /// How many of its records are rejected.
    pub rejected: i64,
    /// When it was last advanced.
    pub updated_at: DateTime<Utc>,
}

impl KnownSource {
    /// A source that is not in the ledger.
    #[must_use]
    pub fn unknown(name: &str) -> Self {
        Self {
            id: 0,
            name: name.to_owned(),
            position: 0,
            line: 0,
            prefix_hash: vec![],
            batches: 0,
            stored: 0,
            rejected: 0,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }
}

impl From<Row> for KnownSource {
    fn from(row: Row) -> Self {
        Self {
            id: row.get("id"),
            name: row.get("name"),
            position: row.get("position"),
            line: row.get("line"),
            prefix_hash: row
                .get::<_, Option<Vec<u8>>>("prefix_hash")
                .unwrap_or_default(),
            batches: row.get("batches"),
            stored: row.get("stored"),
            rejected: row.get("rejected"),
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

/// What the ledger keeps of a file's lines. `crate::ingest` defines the content.
#[derive(Debug, Clone, Default)]
pub struct StoredFingerprint {
    /// Of each of the first lines, and then of all lines so far, after fewer and fewer.
    pub digests: Vec<u64>,
    /// The number of lines and the hash of all of them, in each run that found more, newest first.
    pub ends: Vec<(i64, i64)>,
    /// A hash of the file's path. 0 when read.
    pub path: i64,
    /// Hashes of sampled records, sorted, and the line of each. When read, only those that were
    /// asked for.
    pub samples: Vec<(i64, i64)>,
}

/// A file that may be the same as another one, or share records with it.
#[derive(Debug, Clone)]
pub struct SimilarFile {
    /// Its row in the ledger.
    pub known: KnownSource,
    /// Empty if the file was not read to its end.
    pub fingerprint: StoredFingerprint,
    /// Whether it was last read from the same path.
    pub has_same_path: bool,
    /// Whether another process is ingesting it.
    pub is_claimed: bool,
}

/// A record that is stored from some files.
#[derive(Debug, Clone, Copy)]
pub struct FoundRecord {
    /// Its hash.
    pub hash: i64,
    /// The lowest line in which it is.
    pub line: i64,
    /// In how many files it is.
    pub files: i64,
}

/// Finds a file that had exactly these lines when it was last read, all of which are stored or
/// rejected. `end` is their number and hash.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn find_whole_file(
    client: &Client,
    end: (i64, i64),
) -> Result<Option<KnownSource>, WriteError> {
    let find = include_str!("../../sql/ingest/find_whole_file.sql");
    let row = client.query_opt(find, &[&end.0, &end.1]).await?;
    Ok(row.map(KnownSource::from))
}

/// The most files that are found because of their records, and because of their path.
const MAX_SIMILAR_FILES: i64 = 16;

/// Finds the files that are similar to a new one, and adds it. Others wait until this ends, so that they
/// find this file.
pub struct FileRegistration<'a> {
    transaction: Transaction<'a>,
}

impl<'a> FileRegistration<'a> {
    /// Waits until no other process registers a file.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects a statement.
    pub async fn begin(connection: &'a mut Connection) -> Result<Self, WriteError> {
        let transaction = connection.transaction().await?;
        let lock = include_str!("../../sql/ingest/lock_files.sql");
        transaction.execute(lock, &[]).await?;
        Ok(Self { transaction })
    }

    /// Finds the files that have the same identity or path, or some of these records. Most records in
    /// common first.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn find_files(
        &self,
        identity: &SourceIdentity,
        path: i64,
        hashes: &[i64],
    ) -> Result<Vec<SimilarFile>, WriteError> {
        let find = include_str!("../../sql/ingest/find_files.sql");
        let rows = self
            .transaction
            .query(
                find,
                &[&identity.text(), &path, &hashes, &MAX_SIMILAR_FILES],
            )
            .await?;
        Ok(rows.into_iter().map(SimilarFile::from).collect())
    }

    /// Finds these records in all files together.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn find_records(&self, hashes: &[i64]) -> Result<Vec<FoundRecord>, WriteError> {
        let find = include_str!("../../sql/ingest/find_records.sql");
        let rows = self.transaction.query(find, &[&hashes]).await?;
        let found = |row: Row| FoundRecord {
            hash: row.get("hash"),
            line: row.get("line"),
            files: row.get("files"),
        };
        Ok(rows.into_iter().map(found).collect())
    }

    /// Sets a source of which every record was rejected back to its start. Returns whether it was: not
    /// if some records are stored, or some of the rejected ones were deleted.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn reset_source(&self, known: &KnownSource) -> Result<bool, WriteError> {
        let reset = include_str!("../../sql/ingest/reset_source.sql");
        let updated = self
            .transaction
            .execute(reset, &[&known.id, &known.position, &known.batches])
            .await?;
        Ok(updated == 1)
    }

    /// Finds the source of a file, and adds it if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects a statement.
    pub async fn enter(
        &self,
        identity: &SourceIdentity,
        name: &str,
    ) -> Result<KnownSource, WriteError> {
        enter_source_on(&self.transaction, identity, name).await
    }

    /// Sets the fingerprint of a file, of which the first of `ends` is used, claims the file and ends
    /// the registration.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects a statement.
    pub async fn claim(self, id: i64, fingerprint: &StoredFingerprint) -> Result<(), WriteError> {
        let digests: Vec<u8> = fingerprint
            .digests
            .iter()
            .flat_map(|digest| digest.to_le_bytes())
            .collect();
        let (lines, end) = fingerprint.ends.first().copied().unwrap_or_default();
        let (hashes, sample_lines): (Vec<i64>, Vec<i64>) =
            fingerprint.samples.iter().copied().unzip();
        let set = include_str!("../../sql/ingest/set_fingerprint.sql");
        let path = fingerprint.path;
        self.transaction
            .execute(
                set,
                &[&id, &digests, &lines, &end, &hashes, &sample_lines, &path],
            )
            .await?;
        claim_source(self.transaction.client(), id).await?;
        Ok(self.transaction.commit().await?)
    }
}

impl From<Row> for SimilarFile {
    fn from(row: Row) -> Self {
        let numbers = |column: &str| {
            row.get::<_, Option<Vec<i64>>>(column)
                .unwrap_or_default()
                .into_iter()
        };
        let digests: Option<&[u8]> = row.get("digests");
        let (digests, _) = digests.unwrap_or_default().as_chunks::<8>();
        let fingerprint = StoredFingerprint {
            digests: digests.iter().copied().map(u64::from_le_bytes).collect(),
            ends: numbers("end_lines").zip(numbers("end_digests")).collect(),
            samples: numbers("found_hashes")
                .zip(numbers("found_lines"))
                .collect(),
            path: 0,
        };
        Self {
            fingerprint,
            has_same_path: row.get("has_same_path"),
            is_claimed: row.get("is_claimed"),
            known: row.into(),
        }
    }
}

/// Claims a source for this connection, until it is closed or releases the source. Other runs see the
/// claim.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn claim_source(client: &Client, id: i64) -> Result<(), WriteError> {
    let claim = include_str!("../../sql/ingest/claim_source.sql");
    client.execute(claim, &[&id]).await?;
    Ok(())
}

/// Ends the claim of this connection to a source.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn release_source(client: &Client, id: i64) -> Result<(), WriteError> {
    let release = include_str!("../../sql/ingest/release_source.sql");
    client.execute(release, &[&id]).await?;
    Ok(())
}

/// How many records of a source are stored and rejected, in all runs. 0 if the source was removed.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn source_counts(client: &Client, id: i64) -> Result<(i64, i64), WriteError> {
    let count = include_str!("../../sql/ingest/source_counts.sql");
    let row = client.query_opt(count, &[&id]).await?;
    Ok(row.map_or((0, 0), |row| (row.get("stored"), row.get("rejected"))))
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
    enter_source_on(client, identity, name).await
}

async fn enter_source_on(
    client: &impl GenericClient,
    identity: &SourceIdentity,
    name: &str,
) -> Result<KnownSource, WriteError> {
    let (kind, text) = (identity.kind(), identity.text());
    let add = include_str!("../../sql/ingest/add_source.sql");
    client.execute(add, &[&kind, &text, &name]).await?;
    let row = client
        .query_one(
            include_str!("../../sql/ingest/find_source.sql"),
            &[&kind, &text],
        )
        .await?;
    Ok(row.into())
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

/// The position of the source, if the database has lost batches that were committed: after a
/// failover to a standby that had not received them, or when an earlier backup was restored.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn lost_from(client: &Client, claim: &Claim) -> Result<Option<i64>, WriteError> {
    let lock = include_str!("../../sql/ingest/lock_source.sql");
    let Some(row) = client.query_opt(lock, &[&claim.id]).await? else {
        return Ok(Some(0));
    };
    // Otherwise the number of batches never decreases.
    let is_lost = row.get::<_, i64>("batches") < claim.batches;
    Ok(is_lost.then(|| row.get("position")))
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
