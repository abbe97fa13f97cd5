//! The ledger of ingest: which sources there are, and how far each is stored.
//!
//! The position moves in the transaction of a batch ([`super::BatchWriter`]); here a source is found, added and
//! asked after.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row};

use super::error::WriteError;

/// The length of the beginning that a file is known by, unless the whole file was shorter.
pub const HEAD_BYTES: usize = 4_096;

/// What a source is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A file, by the length and hash of its beginning.
    File {
        /// How many bytes were hashed.
        head_bytes: usize,
        /// Their hash, in hexadecimal.
        hash: String,
    },
    /// A stream, by the name it was given.
    Stream(String),
    /// The standard input of one run, by the run's number.
    Run(i64),
    /// A partition of a Kafka topic, as one consumer group reads it.
    Partition {
        /// The cluster's identifier.
        cluster: String,
        /// The consumer group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition's number.
        partition: i32,
    },
}

impl Identity {
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
            // No topic and no cluster has a slash in its name, so no two of these read the same.
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

/// A place in a source, on the border of two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The next byte.
    pub position: i64,
    /// How many lines end before it.
    pub line: i64,
    /// BLAKE3 of all bytes before it; none where nobody can read them again.
    pub prefix_hash: Option<[u8; 32]>,
}

/// What the ledger knows of a source.
#[derive(Debug, Clone)]
pub struct KnownSource {
    /// Its number.
    pub id: i64,
    /// How many bytes of the file it is known by.
    pub head_bytes: Option<i32>,
    /// What it was called last.
    pub name: String,
    /// The next byte to read.
    pub position: i64,
    /// How many lines end before it.
    pub line: i64,
    /// BLAKE3 of all bytes before it.
    pub prefix_hash: Vec<u8>,
    /// How many batches have moved it.
    pub batches: i64,
    /// When it was moved last.
    pub updated_at: DateTime<Utc>,
}

impl KnownSource {
    /// A source of which nothing is stored, and that has no row.
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

/// The right to move a source on from where it stands.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The source's number.
    pub id: i64,
    /// Whether the source can be read again, by another run.
    pub lasting: bool,
    /// Where the source stands.
    pub position: i64,
    /// How many batches have moved it.
    pub batches: i64,
    /// The number of this run.
    pub writer: i64,
    /// Whether this run has moved it yet.
    pub moved: bool,
    /// What the source is called.
    pub name: std::sync::Arc<str>,
}

impl Claim {
    /// The claim of the run `writer` on a source where the ledger has it.
    #[must_use]
    pub fn new(known: &KnownSource, lasting: bool, writer: i64, name: std::sync::Arc<str>) -> Self {
        let KnownSource {
            id,
            position,
            batches,
            ..
        } = *known;
        Self {
            id,
            lasting,
            position,
            batches,
            writer,
            moved: false,
            name,
        }
    }

    /// Notes that a batch is stored which ends at `position`.
    pub fn advance(&mut self, position: i64) {
        self.position = position;
        self.batches += 1;
        self.moved = true;
    }
}

/// What became of a batch whose commit was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored.
    Committed,
    /// It is not stored, and the source stands where the batch begins.
    RolledBack,
    /// The source stands elsewhere: another process has it.
    Overtaken,
}

/// The lengths of all beginnings that files are known by.
///
/// # Errors
/// The database refuses or is away.
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

/// The source that a file is, by all the beginnings it has; the longest wins.
///
/// # Errors
/// The database refuses or is away.
pub async fn find_file(
    client: &Client,
    beginnings: &[Identity],
) -> Result<Option<KnownSource>, WriteError> {
    let identities: Vec<String> = beginnings.iter().map(Identity::text).collect();
    let row = client
        .query_opt(
            include_str!("../../sql/ingest/find_file.sql"),
            &[&identities],
        )
        .await?;
    Ok(row.map(KnownSource::from))
}

/// The source of that identity, which is added if there is none.
///
/// # Errors
/// The database refuses or is away.
pub async fn enter_source(
    client: &Client,
    identity: &Identity,
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

/// Lets a source of which nothing is stored be known by another beginning.
///
/// # Errors
/// The database refuses or is away, or another process has moved the source.
pub async fn rename_source(
    client: &Client,
    id: i64,
    identity: &Identity,
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

/// What became of the batch that would have moved the claim's source to `position`. Where the server is still at
/// work on it, this waits for it to end.
///
/// # Errors
/// The database refuses or is away.
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

/// Removes the source of a run that is over.
///
/// # Errors
/// The database refuses or is away.
pub async fn remove_run(client: &Client, claim: &Claim) -> Result<(), WriteError> {
    client
        .execute(
            include_str!("../../sql/ingest/remove_run.sql"),
            &[&claim.id],
        )
        .await?;
    Ok(())
}
