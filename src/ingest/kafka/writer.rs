//! The writer: handles the consumer's requests on the database.

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::Receiver;

use super::super::options::Topic;
use super::super::parallel_copy::ParallelCopy;
use super::super::store::{Store, ensure_still_stored};
use super::channel::{PartitionBatch, Request, SharedState};
use super::start::{
    Available, Change, DELETED_BEFORE, LastMessage, NoBeginning, PartitionChanged, Refused, Start,
    new_position,
};
use crate::db::{self, Claim, KnownSource, SourceIdentity, WriteError};

/// Stores the batches of a topic's partitions.
pub(in crate::ingest) struct TopicWriter<'a, 's> {
    pub store: &'a mut Store<'s>,
    pub parallel_copy: &'a mut ParallelCopy,
    pub run_id: i64,
}

impl TopicWriter<'_, '_> {
    /// Handles requests until the channel is closed.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable for too long or rejects a statement, or if
    /// another member of the group has moved a partition, or the database has lost a part of one.
    pub(super) async fn handle_requests(
        &mut self,
        topic: &Topic,
        shared: &SharedState,
        receiver: &mut Receiver<Request>,
    ) -> Result<(), WriteError> {
        let mut claims: FxHashMap<i32, Claim> = FxHashMap::default();
        let mut losses = self.store.session.losses();
        while let Some(request) = self.store.next_message(receiver).await? {
            if losses != self.store.session.losses() {
                losses = self.store.session.losses();
                // Also partitions that nothing arrives on.
                for claim in claims.values() {
                    ensure_still_stored(&mut self.store.session, claim).await?;
                }
            }
            match request {
                Request::Claim {
                    cluster,
                    topic_id,
                    partitions,
                    reply,
                } => {
                    let mut starts = Ok(vec![]);
                    for available in partitions {
                        let number = available.number;
                        let identity = SourceIdentity::Partition {
                            cluster: cluster.clone(),
                            group: topic.group.clone(),
                            topic: topic.name.clone(),
                            partition: number,
                        };
                        let is_replaced = shared.take_replaced(number);
                        let claimed = self
                            .claim(
                                topic,
                                &identity,
                                topic_id.as_deref(),
                                &available,
                                is_replaced,
                            )
                            .await?;
                        match (claimed, &mut starts) {
                            (Ok((claim, start)), Ok(starts)) => {
                                claims.insert(number, claim);
                                starts.push(start);
                            }
                            (Err(refused), Ok(_)) => starts = Err(refused),
                            (_, Err(_)) => {}
                        }
                    }
                    // If the consumer has ended, the channel is closed, too.
                    let _ = reply.send(starts);
                }
                Request::Store(batches) => {
                    self.store_partitions(shared, &mut claims, batches).await?;
                }
                Request::Barrier(reply) => {
                    let _ = reply.send(());
                }
            }
        }
        Ok(())
    }

    /// Claims a partition. Returns the claim and where to start reading, or why it cannot be read.
    async fn claim(
        &mut self,
        topic: &Topic,
        identity: &SourceIdentity,
        topic_id: Option<&str>,
        available: &Available,
        is_replaced: bool,
    ) -> Result<Result<(Claim, Start), Refused>, WriteError> {
        let name = format!("{}/{}", topic.name, available.number);
        let session = &mut self.store.session;
        let mut known = session
            .repeat(async |connection| db::enter_partition(connection, identity, &name).await)
            .await?;
        let offsets = available.offsets.as_ref();
        let is_new = known.source.batches == 0;
        if is_new
            && let Some(first) = offsets.map(|offsets| offsets.start)
            && first > 0
        {
            if topic.require_beginning {
                return Ok(Err(NoBeginning { name, first }.into()));
            }
            log::warn!("{name} begins at offset {first}: {DELETED_BEFORE}");
        }
        let change = Change::find(&known, topic_id, offsets)
            .or_else(|| is_replaced.then_some(Change::Replaced))
            .filter(|_| !is_new);
        if let Some(change) = change {
            let position = known.source.position;
            let changed = PartitionChanged {
                name: name.clone(),
                position,
                change,
            };
            let Some(if_changed) = topic.if_changed else {
                return Ok(Err(changed.into()));
            };
            let position = new_position(if_changed, position, offsets);
            log::warn!("{}; reading it from offset {position}", changed.problem());
            session
                .repeat(async |connection| {
                    db::move_partition(connection, &known.source, position, topic_id).await
                })
                .await?;
            known.source = KnownSource {
                position,
                batches: known.source.batches + 1,
                prefix_hash: vec![],
                ..known.source
            };
        } else if known.topic_id.is_none()
            && let Some(topic_id) = topic_id
        {
            session
                .repeat(async |connection| {
                    db::set_partition_topic(connection, &known.source, topic_id).await
                })
                .await?;
        }
        let start = Start {
            position: (!is_new).then_some(known.source.position),
            // Once Kafka has deleted that message, it cannot be compared.
            last: LastMessage::of(&known)
                .filter(|last| offsets.is_none_or(|offsets| offsets.contains(&last.offset))),
        };
        let claim = Claim::new(&known.source, true, self.run_id, name.into());
        Ok(Ok((claim, start)))
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
            empty,
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
            partitions.push((partition, empty));
            claimed.push((claim.clone(), batch));
        }
        let results = self
            .parallel_copy
            .store_independent(&mut self.store.session, claimed)
            .await;
        // Count the batches that are stored, even if others failed.
        let mut failed = Ok(());
        for ((partition, empty), result) in partitions.into_iter().zip(results) {
            match (result, claims.get_mut(&partition)) {
                (Ok(end), Some(claim)) => {
                    self.store.committed(claim, &end);
                    self.store.tally.add_empty_messages(empty);
                    shared.add_stored(partition, end.checkpoint.position);
                }
                (Err(error), _) => failed = Err(error),
                _ => {}
            }
        }
        failed
    }
}
