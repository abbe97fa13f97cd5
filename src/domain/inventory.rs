//! The inventory: which organization owned which SIM card when.

use std::num::TryFromIntError;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::id::{OrganizationId, SimCardId};

/// Assigns a SIM card to an organization for some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assignment {
    /// The SIM card that is assigned.
    pub sim_card: SimCardId,
    /// Its owner from `valid_from` until `valid_until`.
    pub organization: OrganizationId,
    /// `None`: from the beginning of time.
    pub valid_from: Option<DateTime<Utc>>,
    /// Where the SIM card's next assignment begins, or this one was ended. `None`: no end.
    pub valid_until: Option<DateTime<Utc>>,
}

/// Assignments of millions of SIM cards and their ends, ordered by SIM card and time, without two of
/// one SIM card at the same instant. Each takes 24 bytes and its ICCID.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AssignmentList {
    organizations: Vec<OrganizationId>,
    /// The ICCIDs, one after the other.
    iccids: String,
    rows: Vec<Row>,
}

/// [`Row::organization`] of an end: the SIM card has no owner from then on.
const NO_OWNER: u32 = u32::MAX;

/// [`Row::organization`] of an end that an assignment at the same place names. The SIM card's next
/// assignment may begin there.
const END_OF_ASSIGNMENT: u32 = u32::MAX - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    valid_from_us: i64,
    iccid_start: u32,
    organization: u32,
    place: u32,
    iccid_length: u8,
    /// See [`ListedAssignment::lasts_to_next`].
    lasts_to_next: bool,
}

impl Row {
    fn iccid(self, iccids: &str) -> &str {
        let start = self.iccid_start as usize;
        &iccids[start..start + usize::from(self.iccid_length)]
    }
}

/// An assignment in an [`AssignmentList`], or the end of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedAssignment<'a> {
    /// ICCID of the SIM card.
    pub sim_card: &'a str,
    /// Index into [`AssignmentList::organizations`]; `None` for an end.
    pub organization: Option<usize>,
    /// In microseconds since 1970; `i64::MIN`: from the beginning of time.
    pub valid_from_us: i64,
    /// Whether it states its end, which is where the SIM card's next entry of the list begins.
    pub lasts_to_next: bool,
    /// Whether it is an end that only the assignment before it names. Another assignment may begin
    /// there.
    pub is_implied: bool,
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
            organization: (row.organization < END_OF_ASSIGNMENT)
                .then_some(row.organization as usize),
            valid_from_us: row.valid_from_us,
            lasts_to_next: row.lasts_to_next,
            is_implied: row.organization == END_OF_ASSIGNMENT,
        }
    }

    /// Whether the list has an entry of this SIM card at this instant, in microseconds since 1970.
    #[must_use]
    pub fn contains(&self, sim_card: &str, valid_from_us: i64) -> bool {
        let wanted = (sim_card.as_bytes(), valid_from_us);
        let key = |row: &Row| (row.iccid(&self.iccids).as_bytes(), row.valid_from_us);
        self.rows
            .binary_search_by(|row| key(row).cmp(&wanted))
            .is_ok()
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
    /// Assignments that the file replaces, and ends that it contradicts, which were removed.
    pub removed: u64,
    /// Whether owners have changed in days of which records are stored, which keep theirs.
    #[serde(skip)]
    pub differs_from_records: bool,
}

/// Entries of one SIM card that contradict each other.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The place of the second one.
    pub place: u32,
    /// The SIM card.
    pub sim_card: String,
    /// What the second one says.
    pub kind: ConflictKind,
}

/// How two entries contradict each other.
#[derive(Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// They give a SIM card different owners at the same instant.
    Owners {
        /// The owner according to the second one; `None`: it ends the assignment.
        organization: Option<OrganizationId>,
        /// The owner according to the first one.
        before: Option<OrganizationId>,
    },
    /// Another assignment begins before the one with an end does end.
    Overlap,
}

/// Collects the entries of an inventory in any order.
#[derive(Debug, Default)]
pub struct AssignmentListBuilder {
    list: AssignmentList,
    known: FxHashMap<OrganizationId, u32>,
}

impl AssignmentListBuilder {
    /// Adds an entry. `place` tells where it is in its file, and differs from that of other entries.
    /// Without organization, it ends the SIM card's assignment at `valid_from`.
    ///
    /// # Errors
    /// Returns an error if the ICCIDs take more than 4 GiB.
    pub fn add(
        &mut self,
        sim_card: &SimCardId,
        organization: Option<OrganizationId>,
        valid_from: Option<DateTime<Utc>>,
        valid_until: Option<DateTime<Utc>>,
        place: u32,
    ) -> Result<(), TryFromIntError> {
        let organization = if let Some(organization) = organization {
            self.index(organization)?
        } else {
            NO_OWNER
        };
        let list = &mut self.list;
        let iccid = sim_card.as_str();
        let row = Row {
            valid_from_us: valid_from.map_or(i64::MIN, |instant| instant.timestamp_micros()),
            iccid_start: u32::try_from(list.iccids.len())?,
            organization,
            place,
            iccid_length: u8::try_from(iccid.len())?,
            lasts_to_next: valid_until.is_some(),
        };
        list.rows.push(row);
        list.rows.extend(valid_until.map(|instant| Row {
            valid_from_us: instant.timestamp_micros(),
            organization: END_OF_ASSIGNMENT,
            lasts_to_next: false,
            ..row
        }));
        list.iccids.push_str(iccid);
        Ok(())
    }

    /// The index of an organization in the list.
    fn index(&mut self, organization: OrganizationId) -> Result<u32, TryFromIntError> {
        let list = &mut self.list;
        Ok(if let Some(index) = self.known.get(&organization) {
            *index
        } else {
            let index = u32::try_from(list.organizations.len())?;
            list.organizations.push(organization.clone());
            self.known.insert(organization, index);
            index
        })
    }

    /// Sorts the entries, and drops repeated ones.
    ///
    /// # Errors
    /// Returns the first entry, by place, that contradicts an earlier one.
    pub fn finish(self) -> Result<AssignmentList, Conflict> {
        let AssignmentList {
            organizations,
            iccids,
            mut rows,
        } = self.list;
        let key = |row: &Row| (row.iccid(&iccids).as_bytes(), row.valid_from_us);
        rows.sort_unstable_by(|one, other| {
            let order = |row: &Row| (row.organization == END_OF_ASSIGNMENT, row.place);
            (key(one), order(one)).cmp(&(key(other), order(other)))
        });
        let organization = |row: &Row| organizations.get(row.organization as usize).cloned();
        let conflict = |row: &Row, kind| Conflict {
            place: row.place,
            sim_card: row.iccid(&iccids).to_owned(),
            kind,
        };
        let mut first_conflict: Option<Conflict> = None;
        let mut earlier: &[Row] = &[];
        for same in rows.chunk_by(|one, other| key(one) == key(other)) {
            let first = &same[0];
            let differs = |row: &&Row| {
                row.organization != END_OF_ASSIGNMENT && row.organization != first.organization
            };
            let owners = same.iter().find(differs).map(|second| {
                let (organization, before) = (organization(second), organization(first));
                let kind = ConflictKind::Owners {
                    organization,
                    before,
                };
                conflict(second, kind)
            });
            // Between an assignment and its end, there is no other entry.
            let overlaps = |row: &&Row| {
                let is_own = |other: &Row| other.place == row.place;
                row.organization == END_OF_ASSIGNMENT && !earlier.iter().any(is_own)
            };
            let overlap = same.iter().find(overlaps);
            let overlap = overlap.map(|row| conflict(row, ConflictKind::Overlap));
            let all = [first_conflict, owners, overlap].into_iter().flatten();
            first_conflict = all.min_by_key(|conflict| conflict.place);
            earlier = same;
        }
        if let Some(conflict) = first_conflict {
            return Err(conflict);
        }
        rows.dedup_by(|repeated, row| {
            let is_repeated = key(repeated) == key(row);
            row.lasts_to_next |= is_repeated && repeated.lasts_to_next;
            is_repeated
        });
        Ok(AssignmentList {
            organizations,
            iccids,
            rows,
        })
    }
}
