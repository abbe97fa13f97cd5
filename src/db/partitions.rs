//! Kafka partitions in the ledger: what identifies their topic, and moving them without storing
//! anything.

use tokio_postgres::Client;

use super::error::WriteError;
use super::sources::{KnownSource, SourceIdentity, enter_source};

/// A partition in the ledger.
#[derive(Debug, Clone)]
pub struct KnownPartition {
    /// Its row. The line is the offset after the last message that was read, and the hash is that of
    /// this message.
    pub source: KnownSource,
    /// The identifier of its topic, if it is known.
    pub topic_id: Option<String>,
}

/// Finds a partition, and adds it if it does not exist.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement.
pub async fn enter_partition(
    client: &Client,
    identity: &SourceIdentity,
    name: &str,
) -> Result<KnownPartition, WriteError> {
    let source = enter_source(client, identity, name).await?;
    let find = include_str!("../../sql/ingest/partition_topic.sql");
    let row = client.query_opt(find, &[&source.id]).await?;
    let topic_id = row.and_then(|row| row.get("topic_id"));
    Ok(KnownPartition { source, topic_id })
}

/// Sets the identifier of a partition's topic, unless it has one.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn set_partition_topic(
    client: &Client,
    source: &KnownSource,
    topic_id: &str,
) -> Result<(), WriteError> {
    let set = include_str!("../../sql/ingest/set_partition_topic.sql");
    client.execute(set, &[&source.id, &topic_id]).await?;
    Ok(())
}

/// Moves a partition to `position`, and to the topic `topic_id` if it is given. Its rejected
/// messages are detached from it.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement, or if another process
/// has advanced the partition.
pub async fn move_partition(
    client: &Client,
    known: &KnownSource,
    position: i64,
    topic_id: Option<&str>,
) -> Result<(), WriteError> {
    let move_to = include_str!("../../sql/ingest/move_partition.sql");
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] = [
        &known.id,
        &known.position,
        &known.batches,
        &position,
        &topic_id,
    ];
    let row = client.query_one(move_to, &parameters).await?;
    if row.get("moved") {
        Ok(())
    } else {
        Err(WriteError::Overtaken)
    }
}
