//! The writer: handles the consumer's requests on the database.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::Receiver;

use super::super::inventory;
use super::super::options::Topic;
use super::super::parallel_copy::ParallelCopy;
use super::super::record_encoder::RecordEncoder;
use super::super::store::Store;
use super::channel::{PartitionBatch, Request, SharedState};
use crate::db::{self, Claim, InventoryIndex, Retention, SourceIdentity, WriteError};

/// Stores the batches of a topic's partitions.
pub(in crate::ingest) struct TopicWriter<'a, 's> {
    pub store: &'a mut Store<'s>,
    pub parallel_copy: &'a mut ParallelCopy,
    pub run_id: i64,
    pub inventory: Arc<InventoryIndex>,
    pub retention: Retention,
}

impl TopicWriter<'_, '_> {
    pub(super) fn encoder(&self) -> Arc<RecordEncoder> {
        Arc::new(RecordEncoder::new(
            Arc::clone(&self.inventory),
            self.retention,
        ))
    }

    /// Handles requests until the channel is closed.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable for too long or rejects a statement, or if
    /// another member of the group has moved a partition.
    pub(super) async fn handle_requests(
        &mut self,
        topic: &Topic,
        shared: &SharedState,
        receiver: &mut Receiver<Request>,
    ) -> Result<(), WriteError> {
        let mut claims: FxHashMap<i32, Claim> = FxHashMap::default();
        while let Some(request) = receiver.recv().await {
            match request {
                Request::Claim {
                    cluster,
                    partitions,
                    reply,
                } => {
                    let mut offsets = vec![];
                    for partition in partitions {
                        let claim = self.claim(topic, &cluster, partition).await?;
                        offsets.push((claim.batches > 0).then_some(claim.position));
                        claims.insert(partition, claim);
                    }
                    // If the consumer has ended, the channel is closed, too.
                    let _ = reply.send(offsets);
                }
                Request::Store(batches) => {
                    self.store_partitions(shared, &mut claims, batches).await?;
                }
                Request::ReloadInventory => {
                    let session = &mut self.store.session;
                    inventory::reload_if_changed(session, &mut self.inventory).await?;
                    // Even if it has not changed: the retention limit moves with the clock.
                    shared.set_encoder(self.encoder());
                }
                Request::Barrier(reply) => {
                    let _ = reply.send(());
                }
            }
        }
        Ok(())
    }

    async fn claim(
        &mut self,
        topic: &Topic,
        cluster: &str,
        partition: i32,
    ) -> Result<Claim, WriteError> {
        let name = format!("{}/{partition}", topic.name);
        let identity = SourceIdentity::Partition {
            cluster: cluster.to_owned(),
            group: topic.group.clone(),
            topic: topic.name.clone(),
            partition,
        };
        let known = self
            .store
            .session
            .repeat(async |connection| db::enter_source(connection, &identity, &name).await)
            .await?;
        Ok(Claim::new(&known, true, self.run_id, name.into()))
    }

    async fn store_partitions(
        &mut self,
        shared: &SharedState,
        claims: &mut FxHashMap<i32, Claim>,
        batches: Vec<PartitionBatch>,
    ) -> Result<(), WriteError> {
        let (mut partitions, mut claimed) = (vec![], vec![]);
        for PartitionBatch {
            partition,
            from,
            batch,
        } in batches
        {
            let Some(claim) = claims.get(&partition) else {
                continue;
            };
            // The partition was revoked and assigned again while a batch was in progress, so these
            // records were read twice.
            if claim.position != from {
                return Err(WriteError::Overtaken);
            }
            partitions.push(partition);
            claimed.push((claim.clone(), batch));
        }
        let results = self
            .parallel_copy
            .store_independent(&mut self.store.session, claimed)
            .await;
        // Count the batches that are stored, even if others failed.
        let mut failed = Ok(());
        for (partition, result) in partitions.into_iter().zip(results) {
            match (result, claims.get_mut(&partition)) {
                (Ok(end), Some(claim)) => {
                    self.store.committed(claim, &end);
                    shared.add_stored(partition, end.checkpoint.position);
                }
                (Err(error), _) => failed = Err(error),
                _ => {}
            }
        }
        failed
    }
}
