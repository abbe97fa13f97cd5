//! The inventory: written from assignments, read as the directory that ingest stamps records with.

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

/// Assignments per statement: few enough that the arrays of a statement stay small.
const ASSIGNMENTS_AT_ONCE: usize = 50_000;

/// Adds assignments to the inventory, all or none. Nothing is removed.
///
/// # Errors
/// The database refuses or is away.
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

/// How often the inventory has been loaded. A [`InventoryIndex`] of another version is out of date.
///
/// # Errors
/// The database refuses or is away.
pub async fn inventory_version(client: &Client) -> Result<i64, WriteError> {
    let row = client
        .query_one(include_str!("../../sql/ingest/inventory_version.sql"), &[])
        .await?;
    Ok(row.get("version"))
}

/// The numbers that a usage record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the SIM card.
    pub sim_card: i32,
    /// Number of the organization that it belonged to.
    pub organization: i32,
}

/// Why a record gets no stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoStamp {
    /// The SIM card is not in the inventory.
    Unknown,
    /// The SIM card belonged to nobody at that time.
    Unassigned,
}

/// The inventory in memory, for a look-up per record.
#[derive(Debug, Default)]
pub struct InventoryIndex {
    /// The inventory's version.
    version: i64,
    /// By ICCID: the SIM card's number, and its assignments as a range of `assignments`.
    sim_cards: FxHashMap<Box<str>, (i32, u32, u32)>,
    /// (valid from, in microseconds since 1970; organization), by time within a SIM card.
    assignments: Vec<(i64, i32)>,
}

impl InventoryIndex {
    /// Loads the directory.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn load(client: &Client) -> Result<Self, WriteError> {
        // The version first: a change that comes in between makes it look out of date, which costs one more load.
        let mut directory = Self {
            version: inventory_version(client).await?,
            ..Self::default()
        };
        let parameters: [&str; 0] = [];
        let rows = client.query_raw(INVENTORY_INDEX, parameters).await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await? {
            let valid_from: Option<DateTime<Utc>> = row.get("valid_from");
            let valid_from_us = valid_from.map_or(i64::MIN, |instant| instant.timestamp_micros());
            directory
                .add(
                    row.get("iccid"),
                    row.get("sim_card_id"),
                    valid_from_us,
                    row.get("organization_id"),
                )
                .map_err(|error| WriteError::Refused(format!("loading the inventory: {error}")))?;
        }
        Ok(directory)
    }

    /// The directory that an inventory alone would make, with numbers of its own instead of a database's.
    ///
    /// # Errors
    /// There are more assignments than numbers.
    pub fn of_assignments(assignments: &[Assignment]) -> Result<Self, TryFromIntError> {
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
        let mut directory = Self::default();
        for (iccid, valid_from_us) in sorted {
            directory.add(iccid, 0, valid_from_us, 0)?;
        }
        Ok(directory)
    }

    /// Adds an assignment. Those of one SIM card come one after the other, by time.
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

    /// The stamp of a record of the SIM card `iccid` at a time, in microseconds since 1970.
    ///
    /// # Errors
    /// The SIM card is unknown or was not assigned then.
    pub fn stamp(&self, iccid: &str, time_us: i64) -> Result<Stamp, NoStamp> {
        let &(sim_card, start, end) = self.sim_cards.get(iccid).ok_or(NoStamp::Unknown)?;
        let assignments = &self.assignments[start as usize..end as usize];
        let last = assignments
            .iter()
            .rev()
            .find(|(valid_from_us, _)| *valid_from_us <= time_us);
        last.map(|&(_, organization)| Stamp {
            sim_card,
            organization,
        })
        .ok_or(NoStamp::Unassigned)
    }

    /// The inventory's version.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.version
    }

    /// How many SIM cards there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sim_cards.len()
    }

    /// Whether there is no SIM card at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sim_cards.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_stamped_with_the_owner_at_its_own_date() {
        let mut directory = InventoryIndex::default();
        directory.add("moved", 1, i64::MIN, 10).unwrap();
        directory.add("moved", 1, 100, 11).unwrap();
        directory.add("late", 2, 50, 12).unwrap();
        let organization = |iccid: &str, time_us| {
            directory
                .stamp(iccid, time_us)
                .map(|stamp| stamp.organization)
        };
        assert_eq!(organization("moved", -1), Ok(10));
        assert_eq!(organization("moved", 99), Ok(10));
        assert_eq!(organization("moved", 100), Ok(11));
        assert_eq!(organization("late", 49), Err(NoStamp::Unassigned));
        assert_eq!(organization("late", 50), Ok(12));
        assert_eq!(organization("other", 50), Err(NoStamp::Unknown));
        assert_eq!(directory.len(), 2);
    }
}
