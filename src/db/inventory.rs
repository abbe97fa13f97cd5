//! Loads an inventory file into the database.
//!
//! The file is compared with what is stored, so that a load writes only what it changes, by COPY.
//! Every statement reads or writes by index, so the cost depends on the file and not on the
//! inventory, unless the file replaces it.

use bytes::{BufMut as _, Bytes, BytesMut};
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::{SinkExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Transaction};

use super::binary_format::{HEADER, POSTGRES_EPOCH_US, TRAILER};
use super::connect::Connection;
use super::error::{StorageError, WriteError};
use super::inventory_changes::{Addition, Changes, SimCardRef, StoredSimCard};
use super::inventory_index::{INVENTORY_INDEX, Microseconds};
use crate::domain::{AssignmentList, InventoryChanges, OrganizationId};

/// Usage that is stored for another organization than the inventory has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct InventoryDifference {
    /// The organization of the records.
    pub stored: String,
    /// The one of the inventory; `None`: none.
    pub current: Option<String>,
    /// The number of SIM cards.
    pub sim_cards: i64,
    /// The number of records.
    pub records: i64,
    /// The sum of their bytes.
    pub bytes: i128,
}

/// Compares the owners of stored records with the inventory. Reads the usage of each SIM card and
/// day.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn inventory_differences(
    client: &Client,
) -> Result<Vec<InventoryDifference>, StorageError> {
    let statement = include_str!("../../sql/inventory/differences.sql");
    let rows = client.query(statement, &[]).await?;
    let difference = |row: &Row| {
        let bytes: String = row.try_get("bytes")?;
        let bytes = bytes
            .parse()
            .map_err(|_| StorageError::Other(format!("invalid sum {bytes}").into()))?;
        Ok(InventoryDifference {
            stored: row.try_get("stored")?,
            current: row.try_get("current")?,
            sim_cards: row.try_get("sim_cards")?,
            records: row.try_get("records")?,
            bytes,
        })
    };
    rows.iter().map(difference).collect()
}

const ADD_ORGANIZATIONS: &str = include_str!("../../sql/ingest/add_organizations.sql");
const ORGANIZATION_IDS: &str = include_str!("../../sql/ingest/organization_ids.sql");
const STORED_ASSIGNMENTS: &str = include_str!("../../sql/ingest/stored_assignments.sql");
const MOVE_ASSIGNMENTS: &str = include_str!("../../sql/ingest/move_assignments.sql");
const REMOVE_ASSIGNMENTS: &str = include_str!("../../sql/ingest/remove_assignments.sql");

/// Rows per statement, which limits the size of its arrays.
const ROWS_AT_ONCE: usize = 10_000;

/// Size of the pieces in which rows are sent.
const PIECE_BYTES: usize = 256 * 1024;

/// The ids of the new SIM cards.
struct NewIds {
    first: i32,
    /// For each new SIM card, how many have a lower id.
    places: Vec<i32>,
}

impl NewIds {
    /// The ids of the SIM cards that an organization is the first to own follow each other, so that
    /// aggregates in the order of the ids have its rows in few places.
    fn by_organization(first: i32, changes: &Changes, list: &AssignmentList) -> Self {
        let mut order: Vec<usize> = (0..changes.new_sim_cards.len()).collect();
        order.sort_by_key(|&number| list.get(changes.new_sim_cards[number]).organization);
        let mut places = vec![0; order.len()];
        for (place, number) in (0..).zip(order) {
            places[number] = place;
        }
        Self { first, places }
    }

    /// The id of a new SIM card.
    fn get(&self, number: usize) -> i32 {
        self.first + self.places[number]
    }
}

/// Adds all assignments to the inventory, or none. If they `replace` the inventory, removes all
/// others.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement.
pub async fn store_inventory(
    connection: &mut Connection,
    list: &AssignmentList,
    replace: bool,
) -> Result<InventoryChanges, WriteError> {
    let transaction = connection.transaction().await?;
    let lock = include_str!("../../sql/ingest/lock_inventory.sql");
    let row = transaction.query_one(lock, &[]).await?;
    let (before, has_sim_cards): (i64, bool) = (row.get("entries"), row.get("has_sim_cards"));
    let organizations = organization_ids(&transaction, list.organizations()).await?;
    let mut changes = if has_sim_cards {
        compare(&transaction, list, &organizations, replace).await?
    } else {
        all_new(list)
    };
    if replace {
        changes.removed = superfluous(&transaction, list).await?;
        let first = changes.removed.iter().map(|(_, from_us)| *from_us).min();
        changes.note_change(first);
    }
    remove_assignments(&transaction, &changes.removed).await?;
    let first_id = take_ids(&transaction, changes.new_sim_cards.len()).await?;
    let new_ids = NewIds::by_organization(first_id, &changes, list);
    copy_sim_cards(&transaction, list, &changes.new_sim_cards, &new_ids).await?;
    let (added, moved, removed) = (
        changes.added.len(),
        changes.moved.len(),
        changes.removed.len(),
    );
    copy_assignments(&transaction, list, &organizations, &changes.added, &new_ids).await?;
    move_assignments(&transaction, list, &organizations, &changes.moved).await?;
    let differs_from_records = match changes.changed_from_us {
        Some(from_us) => has_records_from(&transaction, from_us).await?,
        None => false,
    };
    transaction.commit().await?;
    let before = usize::try_from(before).unwrap_or_default();
    Ok(InventoryChanges {
        added: added as u64,
        moved: moved as u64,
        unchanged: (list.len() - added - moved) as u64,
        left: (before + added).saturating_sub(list.len() + removed) as u64,
        removed: removed as u64,
        differs_from_records,
    })
}

/// Whether records of this day, or of a later one, are stored.
async fn has_records_from(transaction: &Transaction<'_>, from_us: i64) -> Result<bool, WriteError> {
    let statement = include_str!("../../sql/ingest/newest_day.sql");
    let newest: Option<NaiveDate> = transaction.query_one(statement, &[]).await?.get("day");
    Ok(
        newest
            .is_some_and(|newest| instant(from_us).is_none_or(|from| from.date_naive() <= newest)),
    )
}

/// The stored entries that the list lacks: the SIM card's id, and valid from in microseconds since
/// 1970.
async fn superfluous(
    transaction: &Transaction<'_>,
    list: &AssignmentList,
) -> Result<Vec<(i32, i64)>, WriteError> {
    let types = [Type::TEXT, Type::INT4, Type::TIMESTAMPTZ, Type::INT4];
    let rows = transaction.copy_out(INVENTORY_INDEX).await?;
    let mut rows = std::pin::pin!(BinaryCopyOutStream::new(rows, &types));
    let mut superfluous = vec![];
    while let Some(row) = rows.try_next().await? {
        let Microseconds(valid_from_us) = row.try_get(2)?;
        if !list.contains(row.try_get(0)?, valid_from_us) {
            superfluous.push((row.try_get(1)?, valid_from_us));
        }
    }
    Ok(superfluous)
}

async fn remove_assignments(
    transaction: &Transaction<'_>,
    removed: &[(i32, i64)],
) -> Result<(), WriteError> {
    for removed in removed.chunks(ROWS_AT_ONCE) {
        let ids: Vec<i32> = removed.iter().map(|(id, _)| *id).collect();
        let valid_from = removed.iter().map(|(_, valid_from_us)| *valid_from_us);
        let valid_from: Vec<_> = valid_from.map(instant).collect();
        let parameters: [&(dyn ToSql + Sync); 2] = [&ids, &valid_from];
        transaction.execute(REMOVE_ASSIGNMENTS, &parameters).await?;
    }
    Ok(())
}

/// The instant; `None`: no start.
fn instant(valid_from_us: i64) -> Option<DateTime<Utc>> {
    match valid_from_us {
        i64::MIN => None,
        valid_from_us => DateTime::from_timestamp_micros(valid_from_us),
    }
}

/// The ids of the organizations, which are added if they are new.
async fn organization_ids(
    transaction: &Transaction<'_>,
    organizations: &[OrganizationId],
) -> Result<Vec<i32>, WriteError> {
    let mut ids = Vec::with_capacity(organizations.len());
    for organizations in organizations.chunks(ROWS_AT_ONCE) {
        let names: Vec<&str> = organizations.iter().map(OrganizationId::as_str).collect();
        transaction.execute(ADD_ORGANIZATIONS, &[&names]).await?;
        let rows = transaction.query(ORGANIZATION_IDS, &[&names]).await?;
        ids.extend(rows.iter().map(|row| row.get::<_, i32>("id")));
    }
    if ids.len() != organizations.len() {
        let text = "an organization was deleted while the inventory was loaded; load it again";
        return Err(WriteError::Refused(text.into()));
    }
    Ok(ids)
}

/// The changes if no SIM card is stored yet.
fn all_new(list: &AssignmentList) -> Changes {
    let mut changes = Changes::default();
    for (index, assignment) in list.iter().enumerate() {
        if index == 0 || list.get(index - 1).sim_card != assignment.sim_card {
            changes.new_sim_cards.push(index);
        }
        changes.added.push(Addition {
            index,
            sim_card: SimCardRef::New(changes.new_sim_cards.len() - 1),
        });
    }
    changes
}

/// Compares the list with what is stored.
async fn compare(
    transaction: &Transaction<'_>,
    list: &AssignmentList,
    organizations: &[i32],
    replace: bool,
) -> Result<Changes, WriteError> {
    let use_indexes = include_str!("../../sql/ingest/use_indexes.sql");
    transaction.query_one(use_indexes, &[]).await?;
    let statement = transaction.prepare(STORED_ASSIGNMENTS).await?;
    let mut changes = Changes::default();
    let mut start = 0;
    while start < list.len() {
        // SIM cards of the list with the index of their first assignment.
        let (mut iccids, mut firsts) = (vec![], vec![]);
        let mut end = start;
        while end < list.len() {
            let iccid = list.get(end).sim_card;
            if iccids.last() != Some(&iccid) {
                if iccids.len() == ROWS_AT_ONCE {
                    break;
                }
                iccids.push(iccid);
                firsts.push(end);
            }
            end += 1;
        }
        let stored = stored_sim_cards(transaction, &statement, &iccids).await?;
        let ends = firsts.iter().copied().skip(1).chain([end]);
        for ((first, end), stored) in firsts.iter().copied().zip(ends).zip(stored) {
            changes
                .add_sim_card(list, first..end, organizations, &stored, replace)
                .map_err(|overlap| WriteError::Refused(overlap.to_string().into()))?;
        }
        start = end;
    }
    Ok(changes)
}

async fn stored_sim_cards(
    transaction: &Transaction<'_>,
    statement: &tokio_postgres::Statement,
    iccids: &[&str],
) -> Result<Vec<StoredSimCard>, WriteError> {
    let mut stored = Vec::new();
    stored.resize_with(iccids.len(), StoredSimCard::default);
    let parameters: [&(dyn ToSql + Sync); 1] = [&iccids];
    let rows = transaction.query_raw(statement, parameters).await?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await? {
        let number: i64 = row.get(0);
        let sim_card = usize::try_from(number - 1)
            .ok()
            .and_then(|index| stored.get_mut(index))
            .ok_or_else(|| WriteError::Refused(format!("invalid number {number}").into()))?;
        sim_card.id = Some(row.get(1));
        let valid_from: Option<DateTime<Utc>> = row.get(2);
        if row.get("is_entry") {
            let valid_from_us = valid_from.map_or(i64::MIN, |instant| instant.timestamp_micros());
            sim_card.owners.insert(valid_from_us, row.get(3));
        }
    }
    Ok(stored)
}

/// Takes ids for new SIM cards, and returns the first.
async fn take_ids(transaction: &Transaction<'_>, count: usize) -> Result<i32, WriteError> {
    if count == 0 {
        return Ok(0);
    }
    let too_many = |_| WriteError::Refused("there are no more ids for SIM cards".into());
    let count = i64::try_from(count).map_err(too_many)?;
    let statement = include_str!("../../sql/ingest/take_sim_card_ids.sql");
    let last: i64 = transaction
        .query_one(statement, &[&count])
        .await?
        .get("last");
    i32::try_from(last).map_err(too_many)?;
    i32::try_from(last - count + 1).map_err(too_many)
}

async fn copy_sim_cards(
    transaction: &Transaction<'_>,
    list: &AssignmentList,
    new_sim_cards: &[usize],
    new_ids: &NewIds,
) -> Result<(), WriteError> {
    let statement = include_str!("../../sql/ingest/copy_sim_cards.sql");
    let rows = new_sim_cards.iter().enumerate().map(|(number, &index)| {
        move |buffer: &mut BytesMut| {
            buffer.put_i16(2);
            put_integer(buffer, new_ids.get(number));
            put_text(buffer, list.get(index).sim_card);
        }
    });
    copy(transaction, statement, rows).await
}

async fn copy_assignments(
    transaction: &Transaction<'_>,
    list: &AssignmentList,
    organizations: &[i32],
    added: &[Addition],
    new_ids: &NewIds,
) -> Result<(), WriteError> {
    let statement = include_str!("../../sql/ingest/copy_assignments.sql");
    let rows = added.iter().map(|addition| {
        let assignment = list.get(addition.index);
        let organization = assignment.organization.map(|index| organizations[index]);
        let sim_card = match addition.sim_card {
            SimCardRef::Stored(id) => id,
            SimCardRef::New(number) => new_ids.get(number),
        };
        move |buffer: &mut BytesMut| {
            buffer.put_i16(4);
            put_integer(buffer, sim_card);
            buffer.put_i32(8);
            buffer.put_i64(match assignment.valid_from_us {
                i64::MIN => i64::MIN,
                valid_from_us => valid_from_us - POSTGRES_EPOCH_US,
            });
            match organization {
                Some(organization) => put_integer(buffer, organization),
                None => buffer.put_i32(-1),
            }
            put_text(buffer, assignment.sim_card);
        }
    });
    copy(transaction, statement, rows).await
}

async fn move_assignments(
    transaction: &Transaction<'_>,
    list: &AssignmentList,
    organizations: &[i32],
    moved: &[(i32, usize)],
) -> Result<(), WriteError> {
    for moved in moved.chunks(ROWS_AT_ONCE) {
        let ids: Vec<i32> = moved.iter().map(|(id, _)| *id).collect();
        let assignments = || moved.iter().map(|(_, index)| list.get(*index));
        let valid_from: Vec<_> = assignments()
            .map(|assignment| instant(assignment.valid_from_us))
            .collect();
        let organizations: Vec<Option<i32>> = assignments()
            .map(|assignment| assignment.organization.map(|index| organizations[index]))
            .collect();
        let parameters: [&(dyn ToSql + Sync); 3] = [&ids, &valid_from, &organizations];
        transaction.execute(MOVE_ASSIGNMENTS, &parameters).await?;
    }
    Ok(())
}

/// Copies rows in the binary format, and checks that the server has stored all of them. Each row
/// appends itself to the buffer.
async fn copy(
    transaction: &Transaction<'_>,
    statement: &str,
    rows: impl Iterator<Item = impl FnOnce(&mut BytesMut)>,
) -> Result<(), WriteError> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut count = 0;
    let mut sink = Box::pin(transaction.copy_in::<_, Bytes>(statement).await?);
    let mut buffer = BytesMut::with_capacity(PIECE_BYTES + 1024);
    buffer.extend_from_slice(HEADER);
    for row in rows {
        row(&mut buffer);
        count += 1;
        if buffer.len() >= PIECE_BYTES {
            let piece = std::mem::replace(&mut buffer, BytesMut::with_capacity(PIECE_BYTES + 1024));
            sink.send(piece.freeze()).await?;
        }
    }
    buffer.extend_from_slice(TRAILER);
    sink.send(buffer.freeze()).await?;
    let stored = sink.as_mut().finish().await?;
    if stored == count {
        Ok(())
    } else {
        let text = format!("the server stored {stored} of {count} rows");
        Err(WriteError::Refused(text.into()))
    }
}

fn put_integer(buffer: &mut BytesMut, value: i32) {
    buffer.put_i32(4);
    buffer.put_i32(value);
}

fn put_text(buffer: &mut BytesMut, text: &str) {
    // An identifier has at most 64 bytes.
    buffer.put_i32(i32::try_from(text.len()).unwrap_or_default());
    buffer.extend_from_slice(text.as_bytes());
}
