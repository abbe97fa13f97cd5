//! The inventory: which organization owned which SIM card when.

use std::num::TryFromIntError;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::id::{OrganizationId, SimCardId};

/// Assigns a SIM card to an organization, from `valid_from` until the SIM card's next assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assignment {
    /// The SIM card that is assigned.
    pub sim_card: SimCardId,
    /// Its owner from `valid_from` on.
    pub organization: OrganizationId,
    /// `None`: from the beginning of time.
    pub valid_from: Option<DateTime<Utc>>,
}

/// Assignments of millions of SIM cards, ordered by SIM card and time, without two of one SIM card
/// from the same instant. Each takes 24 bytes and its ICCID.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AssignmentList {
    organizations: Vec<OrganizationId>,
    /// The ICCIDs, one after the other.
    iccids: String,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    valid_from_us: i64,
    iccid_start: u32,
    organization: u32,
    place: u32,
    iccid_length: u8,
}

impl Row {
    fn iccid(self, iccids: &str) -> &str {
        let start = self.iccid_start as usize;
        &iccids[start..start + usize::from(self.iccid_length)]
    }
}

/// An assignment in an [`AssignmentList`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedAssignment<'a> {
    /// ICCID of the SIM card.
    pub sim_card: &'a str,
    /// Index into [`AssignmentList::organizations`].
    pub organization: usize,
    /// In microseconds since 1970; `i64::MIN`: from the beginning of time.
    pub valid_from_us: i64,
}

impl AssignmentList {
    /// The organizations, each once, in no particular order.
    #[must_use]
    pub fn organizations(&self) -> &[OrganizationId] {
        &self.organizations
    }

    /// The assignment at `index`.
    ///
    /// # Panics
    /// Panics if there are not that many.
    #[must_use]
    pub fn get(&self, index: usize) -> ListedAssignment<'_> {
        let row = self.rows[index];
        ListedAssignment {
            sim_card: row.iccid(&self.iccids),
            organization: row.organization as usize,
            valid_from_us: row.valid_from_us,
        }
    }

    /// All assignments.
    pub fn iter(&self) -> impl Iterator<Item = ListedAssignment<'_>> {
        (0..self.rows.len()).map(|index| self.get(index))
    }

    /// The number of assignments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no assignments.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// What loading an inventory file changed. The first three add up to the file's assignments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct InventoryChanges {
    /// Assignments that were new.
    pub added: u64,
    /// Assignments that existed, and now belong to another organization.
    pub moved: u64,
    /// Assignments that existed as they are in the file.
    pub unchanged: u64,
    /// Assignments that the file lacks, which remain in the database.
    pub left: u64,
}

/// Two assignments of one SIM card to different organizations from the same instant.
#[derive(Debug, PartialEq, Eq)]
pub struct ConflictingOwners {
    /// The place of the second one.
    pub place: u32,
    /// The SIM card.
    pub sim_card: String,
    /// Its owner according to the second one.
    pub organization: OrganizationId,
    /// Its owner according to the first one.
    pub before: OrganizationId,
}

/// Collects the entries of an inventory in any order.
#[derive(Debug, Default)]
pub struct AssignmentListBuilder {
    list: AssignmentList,
    known: FxHashMap<OrganizationId, u32>,
}

impl AssignmentListBuilder {
    /// Adds an entry. `place` tells where it is in its file.
    ///
    /// # Errors
    /// Returns an error if the ICCIDs take more than 4 GiB.
    pub fn add(
        &mut self,
        sim_card: &SimCardId,
        organization: OrganizationId,
        valid_from: Option<DateTime<Utc>>,
        place: u32,
    ) -> Result<(), TryFromIntError> {
        let list = &mut self.list;
        let organization = if let Some(index) = self.known.get(&organization) {
            *index
        } else {
            let index = u32::try_from(list.organizations.len())?;
            list.organizations.push(organization.clone());
            self.known.insert(organization, index);
            index
        };
        let iccid = sim_card.as_str();
        list.rows.push(Row {
            valid_from_us: valid_from.map_or(i64::MIN, |instant| instant.timestamp_micros()),
            iccid_start: u32::try_from(list.iccids.len())?,
            organization,
            place,
            iccid_length: u8::try_from(iccid.len())?,
        });
        list.iccids.push_str(iccid);
        Ok(())
    }

    /// Sorts the entries, and drops repeated ones.
    ///
    /// # Errors
    /// Returns the first entry, by place, that contradicts an earlier one.
    pub fn finish(self) -> Result<AssignmentList, ConflictingOwners> {
        let AssignmentList {
            organizations,
            iccids,
            mut rows,
        } = self.list;
        let key = |row: &Row| (row.iccid(&iccids).as_bytes(), row.valid_from_us);
        rows.sort_unstable_by(|one, other| (key(one), one.place).cmp(&(key(other), other.place)));
        let conflict = rows
            .chunk_by(|one, other| key(one) == key(other))
            .filter_map(|same| {
                let first = same.first()?;
                let differs = |row: &&Row| row.organization != first.organization;
                Some((same.iter().find(differs)?, first))
            })
            .min_by_key(|(second, _)| second.place);
        if let Some((second, first)) = conflict {
            let organization = |row: &Row| organizations[row.organization as usize].clone();
            return Err(ConflictingOwners {
                place: second.place,
                sim_card: second.iccid(&iccids).to_owned(),
                organization: organization(second),
                before: organization(first),
            });
        }
        rows.dedup_by(|one, other| key(one) == key(other));
        Ok(AssignmentList {
            organizations,
            iccids,
            rows,
        })
    }
}
