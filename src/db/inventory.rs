//! Stores the inventory, and loads it as the index that ingest looks records up in.

use std::num::TryFromIntError;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use rustc_hash::FxHashMap;
use tokio_postgres::Client;

use super::connect::Connection;
use super::error::WriteError;
use crate::domain::Assignment;

const INVENTORY_INDEX: &str = include_str!("../../sql/ingest/inventory_index.sql");
const ADD_ORGANIZATIONS: &str = include_str!("../../sql/ingest/add_organizations.sql");
const ADD_SIM_CARDS: &str = include_str!("../../sql/ingest/add_sim_cards.sql");
const ASSIGN_SIM_CARDS: &str = include_str!("../../sql/ingest/assign_sim_cards.sql");

/// Assignments per statement, which limits the size of its arrays.
const ASSIGNMENTS_AT_ONCE: usize = 50_000;

/// Adds all assignments to the inventory, or none. Removes nothing.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement.
pub async fn store_inventory(
    connection: &mut Connection,
    assignments: &[Assignment],
) -> Result<(), WriteError> {
    let transaction = connection.transaction().await?;
    for assignments in assignments.chunks(ASSIGNMENTS_AT_ONCE) {
        let sim_cards: Vec<&str> = assignments
            .iter()
            .map(|assignment| assignment.sim_card.as_str())
            .collect();
        let organizations: Vec<&str> = assignments
            .iter()
            .map(|assignment| assignment.organization.as_str())
            .collect();
        let valid_from: Vec<Option<DateTime<Utc>>> = assignments
            .iter()
            .map(|assignment| assignment.valid_from)
            .collect();
        transaction
            .execute(ADD_ORGANIZATIONS, &[&organizations])
            .await?;
        transaction.execute(ADD_SIM_CARDS, &[&sim_cards]).await?;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&sim_cards, &organizations, &valid_from];
        transaction.execute(ASSIGN_SIM_CARDS, &parameters).await?;
    }
    transaction
        .execute(
            include_str!("../../sql/ingest/advance_inventory_version.sql"),
            &[],
        )
        .await?;
    Ok(transaction.commit().await?)
}

/// How often the inventory has been loaded. An [`InventoryIndex`] of another version is out of
/// date.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn inventory_version(client: &Client) -> Result<i64, WriteError> {
    let row = client
        .query_one(include_str!("../../sql/ingest/inventory_version.sql"), &[])
        .await?;
    Ok(row.get("version"))
}

/// The ids that a usage record contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordIds {
    /// The key of the SIM card in `sim_cards`.
    pub sim_card: i32,
    /// The key, in `organizations`, of the organization it was assigned to at the record's time.
    pub organization: i32,
}

/// Why the inventory has no ids for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// The SIM card is not in the inventory.
    Unknown,
    /// The SIM card was not assigned to an organization at that time.
    Unassigned,
}

/// The inventory in memory, for one lookup per record.
#[derive(Debug, Default)]
pub struct InventoryIndex {
    /// See [`inventory_version`].
    version: i64,
    /// By ICCID: the SIM card's id, and the range of its assignments in `assignments`.
    sim_cards: FxHashMap<Box<str>, (i32, u32, u32)>,
    /// (valid from, in microseconds since 1970; organization), sorted by time for each SIM card.
    assignments: Vec<(i64, i32)>,
}

impl InventoryIndex {
    /// Loads the inventory.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects a statement.
    pub async fn load(client: &Client) -> Result<Self, WriteError> {
        // The version first: after a change in between, the index seems out of date and is loaded
        // again.
        let mut index = Self {
            version: inventory_version(client).await?,
            ..Self::default()
        };
        let parameters: [&str; 0] = [];
        let rows = client.query_raw(INVENTORY_INDEX, parameters).await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await? {
            let valid_from: Option<DateTime<Utc>> = row.get("valid_from");
            let valid_from_us = valid_from.map_or(i64::MIN, |instant| instant.timestamp_micros());
            index
                .add(
                    row.get("iccid"),
                    row.get("sim_card_id"),
                    valid_from_us,
                    row.get("organization_id"),
                )
                .map_err(|error| {
                    WriteError::Refused(format!("loading the inventory: {error}").into())
                })?;
        }
        Ok(index)
    }

    /// Creates an index without a database. All its ids are 0.
    ///
    /// # Errors
    /// Returns an error if there are more than 4,294,967,295 assignments.
    pub fn from_assignments(assignments: &[Assignment]) -> Result<Self, TryFromIntError> {
        let mut sorted: Vec<(&str, i64)> = assignments
            .iter()
            .map(|assignment| {
                let valid_from_us = assignment
                    .valid_from
                    .map_or(i64::MIN, |instant| instant.timestamp_micros());
                (assignment.sim_card.as_str(), valid_from_us)
            })
            .collect();
        sorted.sort_unstable();
        let mut index = Self::default();
        for (iccid, valid_from_us) in sorted {
            index.add(iccid, 0, valid_from_us, 0)?;
        }
        Ok(index)
    }

    /// Adds an assignment. Those of one SIM card must be added consecutively, in the order of time.
    fn add(
        &mut self,
        iccid: &str,
        sim_card: i32,
        valid_from_us: i64,
        organization: i32,
    ) -> Result<(), TryFromIntError> {
        let next = u32::try_from(self.assignments.len())?;
        self.assignments.push((valid_from_us, organization));
        if let Some((_, _, end)) = self.sim_cards.get_mut(iccid) {
            *end = next + 1;
        } else {
            self.sim_cards
                .insert(iccid.into(), (sim_card, next, next + 1));
        }
        Ok(())
    }

    /// Looks up the ids for a record of the SIM card `iccid` at `time_us`, in microseconds since
    /// 1970.
    ///
    /// # Errors
    /// Returns an error if the SIM card is unknown or was not assigned at that time.
    pub fn look_up(&self, iccid: &str, time_us: i64) -> Result<RecordIds, LookupError> {
        let &(sim_card, start, end) = self.sim_cards.get(iccid).ok_or(LookupError::Unknown)?;
        let assignments = &self.assignments[start as usize..end as usize];
        let last = assignments
            .iter()
            .rev()
            .find(|(valid_from_us, _)| *valid_from_us <= time_us);
        last.map(|&(_, organization)| RecordIds {
            sim_card,
            organization,
        })
        .ok_or(LookupError::Unassigned)
    }

    /// The version it was loaded from: see [`inventory_version`].
    #[must_use]
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The number of SIM cards.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sim_cards.len()
    }

    /// Whether there are no SIM cards.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sim_cards.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gets_the_organization_at_its_own_date() {
        let mut index = InventoryIndex::default();
        index.add("moved", 1, i64::MIN, 10).unwrap();
        index.add("moved", 1, 100, 11).unwrap();
        index.add("late", 2, 50, 12).unwrap();
        let organization =
            |iccid: &str, time_us| index.look_up(iccid, time_us).map(|ids| ids.organization);
        assert_eq!(organization("moved", -1), Ok(10));
        assert_eq!(organization("moved", 99), Ok(10));
        assert_eq!(organization("moved", 100), Ok(11));
        assert_eq!(organization("late", 49), Err(LookupError::Unassigned));
        assert_eq!(organization("late", 50), Ok(12));
        assert_eq!(organization("other", 50), Err(LookupError::Unknown));
        assert_eq!(index.len(), 2);
    }
}
