//! The inventory in memory, in which ingest looks records up.

use std::hash::BuildHasher as _;
use std::num::TryFromIntError;

use futures_util::TryStreamExt as _;
use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::binary_format::POSTGRES_EPOCH_US;
use super::error::WriteError;
use crate::domain::AssignmentList;

pub(super) const INVENTORY_INDEX: &str = include_str!("../../sql/ingest/inventory_index.sql");

/// The usual length of an ICCID, and the byte before it.
const USUAL_ICCID_BYTES: usize = 20;

/// The end of a list in [`InventoryIndex::earlier`].
const NONE: u32 = u32::MAX;

/// [`Owner::organization`] of a SIM card without owner. The ids of organizations begin at 1.
const NO_OWNER: i32 = -1;

/// A number that differs after each change of the inventory. An [`InventoryIndex`] of another version is out of date.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn inventory_version(client: &Client) -> Result<i64, WriteError> {
    Ok(version_and_size(client).await?.0)
}

/// The version, and the number of assignments.
async fn version_and_size(client: &Client) -> Result<(i64, usize), WriteError> {
    let statement = include_str!("../../sql/ingest/inventory_version.sql");
    let row = client.query_one(statement, &[]).await?;
    let assignments: i64 = row.get("assignments");
    let size = usize::try_from(assignments).unwrap_or_default();
    Ok((row.get("version"), size))
}

/// The SIM card and the organization that were added last. A database without them has lost a part of
/// the inventory, and may have given the ids to others.
#[derive(Debug)]
pub struct NewestIds {
    sim_card: (Option<i32>, Option<String>),
    organization: (Option<i32>, Option<String>),
}

impl NewestIds {
    /// Loads those of the inventory as it is now.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn load(client: &Client) -> Result<Self, WriteError> {
        let statement = include_str!("../../sql/ingest/newest_ids.sql");
        let row = client.query_one(statement, &[]).await?;
        Ok(Self {
            sim_card: (row.get("sim_card"), row.get("iccid")),
            organization: (row.get("organization"), row.get("organization_name")),
        })
    }

    /// Whether the database still has them.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn exist(&self, client: &Client) -> Result<bool, WriteError> {
        let statement = include_str!("../../sql/ingest/has_ids.sql");
        let (sim_card, organization) = (&self.sim_card, &self.organization);
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&sim_card.0, &sim_card.1, &organization.0, &organization.1];
        Ok(client.query_one(statement, &parameters).await?.get(0))
    }
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

/// The inventory in memory, for one lookup per record. A SIM card takes 24 bytes, its ICCID and a
/// byte, and 6 to 11 bytes in the hash table; each further assignment takes 16 bytes.
#[derive(Debug, Default)]
pub struct InventoryIndex {
    /// See [`inventory_version`].
    version: i64,
    /// Indexes into `sim_cards`, by ICCID.
    by_iccid: HashTable<u32>,
    sim_cards: Vec<SimCard>,
    /// Each ICCID after a byte with its length.
    iccids: Vec<u8>,
    /// The assignments before the last one of each SIM card, as linked lists.
    earlier: Vec<Owner>,
}

#[derive(Debug, Clone, Copy)]
struct SimCard {
    /// Its last assignment.
    owner: Owner,
    id: i32,
    /// Index into `iccids`.
    iccid: u32,
}

/// An assignment to an organization.
#[derive(Debug, Clone, Copy)]
struct Owner {
    /// In microseconds since 1970; `i64::MIN`: no start.
    valid_from_us: i64,
    /// [`NO_OWNER`] if an assignment ended.
    organization: i32,
    /// Index into `earlier` of the assignment before this one, or [`NONE`].
    before: u32,
}

/// An instant in the binary format, as microseconds since 1970.
pub(super) struct Microseconds(pub i64);

impl<'a> FromSql<'a> for Microseconds {
    fn from_sql(
        sql_type: &Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let _ = sql_type;
        let since_2000 = i64::from_sql(&Type::INT8, raw)?;
        // The least and the greatest number mean -infinity and infinity.
        let is_finite = since_2000 != i64::MIN;
        Ok(Self(if is_finite {
            since_2000.saturating_add(POSTGRES_EPOCH_US)
        } else {
            i64::MIN
        }))
    }

    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TIMESTAMPTZ
    }
}

impl InventoryIndex {
    /// Loads the inventory.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects a statement.
    pub async fn load(client: &Client) -> Result<Self, WriteError> {
        // The version first: after a change in between, the index seems out of date and is loaded
        // again.
        let (version, size) = version_and_size(client).await?;
        let mut index = Self::with_capacity(size);
        index.version = version;
        let types = [Type::TEXT, Type::INT4, Type::TIMESTAMPTZ, Type::INT4];
        let rows = client.copy_out(INVENTORY_INDEX).await?;
        let mut rows = std::pin::pin!(BinaryCopyOutStream::new(rows, &types));
        while let Some(row) = rows.try_next().await? {
            let Microseconds(valid_from_us) = row.try_get(2)?;
            index
                .add(
                    row.try_get(0)?,
                    row.try_get(1)?,
                    valid_from_us,
                    row.try_get::<Option<i32>>(3)?.unwrap_or(NO_OWNER),
                )
                .map_err(|error| {
                    WriteError::Refused(format!("loading the inventory: {error}").into())
                })?;
        }
        index.shrink();
        Ok(index)
    }

    /// Creates an index without a database, of ids that must not be stored.
    ///
    /// # Errors
    /// Returns an error if the list is too long.
    pub fn from_list(list: &AssignmentList) -> Result<Self, TryFromIntError> {
        let mut index = Self::with_capacity(list.len());
        for assignment in list.iter() {
            let organization = assignment.organization.map_or(NO_OWNER, |_| 0);
            index.add(
                assignment.sim_card,
                0,
                assignment.valid_from_us,
                organization,
            )?;
        }
        index.shrink();
        Ok(index)
    }

    /// Room for this many SIM cards, so that nothing is moved while they are added.
    fn with_capacity(size: usize) -> Self {
        Self {
            by_iccid: HashTable::with_capacity(size),
            sim_cards: Vec::with_capacity(size),
            iccids: Vec::with_capacity(size * USUAL_ICCID_BYTES),
            ..Self::default()
        }
    }

    /// Returns memory that was reserved for more SIM cards than there are.
    fn shrink(&mut self) {
        let Self {
            by_iccid,
            sim_cards,
            iccids,
            earlier,
            ..
        } = self;
        by_iccid.shrink_to_fit(|index| hash(iccid_of(iccids, sim_cards, *index)));
        sim_cards.shrink_to_fit();
        iccids.shrink_to_fit();
        earlier.shrink_to_fit();
    }

    /// Adds an assignment.
    fn add(
        &mut self,
        iccid: &str,
        sim_card: i32,
        valid_from_us: i64,
        organization: i32,
    ) -> Result<(), TryFromIntError> {
        let Self {
            by_iccid,
            sim_cards,
            iccids,
            earlier,
            ..
        } = self;
        let iccid = iccid.as_bytes();
        let mut owner = Owner {
            valid_from_us,
            organization,
            before: NONE,
        };
        let found = by_iccid.entry(
            hash(iccid),
            |index| iccid_of(iccids, sim_cards, *index) == iccid,
            |index| hash(iccid_of(iccids, sim_cards, *index)),
        );
        match found {
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert(u32::try_from(sim_cards.len())?);
                sim_cards.push(SimCard {
                    owner,
                    id: sim_card,
                    iccid: u32::try_from(iccids.len())?,
                });
                iccids.push(u8::try_from(iccid.len())?);
                iccids.extend_from_slice(iccid);
            }
            hashbrown::hash_table::Entry::Occupied(entry) => {
                let next = u32::try_from(earlier.len())?;
                let last = &mut sim_cards[*entry.get() as usize].owner;
                if valid_from_us >= last.valid_from_us {
                    std::mem::swap(last, &mut owner);
                    last.before = next;
                } else {
                    // The assignment that will follow the new one, unless that is the last.
                    let mut follower = None;
                    owner.before = last.before;
                    while let Some(before) = earlier.get(owner.before as usize)
                        && before.valid_from_us > valid_from_us
                    {
                        follower = Some(owner.before as usize);
                        owner.before = before.before;
                    }
                    match follower {
                        Some(follower) => earlier[follower].before = next,
                        None => last.before = next,
                    }
                }
                earlier.push(owner);
            }
        }
        Ok(())
    }

    /// Looks up the ids for a record of the SIM card `iccid` at `time_us`, in microseconds since
    /// 1970.
    ///
    /// # Errors
    /// Returns an error if the SIM card is unknown or was not assigned at that time.
    pub fn look_up(&self, iccid: &str, time_us: i64) -> Result<RecordIds, LookupError> {
        let iccid = iccid.as_bytes();
        let index = self
            .by_iccid
            .find(hash(iccid), |index| {
                iccid_of(&self.iccids, &self.sim_cards, *index) == iccid
            })
            .ok_or(LookupError::Unknown)?;
        let SimCard { mut owner, id, .. } = self.sim_cards[*index as usize];
        while owner.valid_from_us > time_us {
            owner = *self
                .earlier
                .get(owner.before as usize)
                .ok_or(LookupError::Unassigned)?;
        }
        if owner.organization == NO_OWNER {
            return Err(LookupError::Unassigned);
        }
        Ok(RecordIds {
            sim_card: id,
            organization: owner.organization,
        })
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

fn hash(iccid: &[u8]) -> u64 {
    FxBuildHasher.hash_one(iccid)
}

fn iccid_of<'a>(iccids: &'a [u8], sim_cards: &[SimCard], index: u32) -> &'a [u8] {
    let start = sim_cards[index as usize].iccid as usize;
    let length = usize::from(iccids[start]);
    &iccids[start + 1..][..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gets_the_organization_at_its_own_date() {
        let assignments = [
            ("moved", 1, i64::MIN, 10),
            ("moved", 1, 100, 11),
            ("moved", 1, 200, 13),
            ("late", 2, 50, 12),
        ];
        // The database returns them in any order.
        for order in [
            [0, 1, 2, 3],
            [2, 1, 0, 3],
            [1, 0, 3, 2],
            [2, 0, 1, 3],
            [0, 2, 3, 1],
            [3, 1, 2, 0],
        ] {
            let mut index = InventoryIndex::default();
            for (iccid, sim_card, valid_from_us, organization) in order.map(|i| assignments[i]) {
                index
                    .add(iccid, sim_card, valid_from_us, organization)
                    .unwrap();
            }
            index.shrink();
            let organization =
                |iccid: &str, time_us| index.look_up(iccid, time_us).map(|ids| ids.organization);
            assert_eq!(organization("moved", -1), Ok(10));
            assert_eq!(organization("moved", 99), Ok(10));
            assert_eq!(organization("moved", 100), Ok(11));
            assert_eq!(organization("moved", 200), Ok(13));
            assert_eq!(organization("late", 49), Err(LookupError::Unassigned));
            assert_eq!(organization("late", 50), Ok(12));
            assert_eq!(organization("other", 50), Err(LookupError::Unknown));
            assert_eq!(index.len(), 2);
        }
    }

    #[test]
    fn a_sim_card_takes_less_than_100_bytes() {
        let count = 100_000;
        let mut index = InventoryIndex::with_capacity(count);
        for number in 0..count {
            let id = i32::try_from(number).unwrap();
            index
                .add(&format!("8944{number:015}"), id, i64::MIN, 1)
                .unwrap();
        }
        let buckets = index.by_iccid.num_buckets();
        let bytes = buckets * (size_of::<u32>() + 1)
            + index.sim_cards.capacity() * size_of::<SimCard>()
            + index.iccids.capacity();
        assert!(bytes < 60 * count, "{bytes} bytes");
        assert_eq!(
            index.look_up("8944000000000012345", 0).unwrap().sim_card,
            12_345
        );
    }
}
