//! Compares the entries of an inventory file with what is stored of a SIM card.

use std::collections::BTreeMap;
use std::ops::Range;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::domain::AssignmentList;

/// A new assignment.
pub(super) struct Addition {
    /// Index into the list.
    pub index: usize,
    pub sim_card: SimCardRef,
}

#[derive(Clone, Copy)]
pub(super) enum SimCardRef {
    /// Its id.
    Stored(i32),
    /// Its number among the new SIM cards.
    New(usize),
}

/// What a load has to write.
#[derive(Default)]
pub(super) struct Changes {
    /// For each new SIM card, the index of its first assignment in the list.
    pub new_sim_cards: Vec<usize>,
    pub added: Vec<Addition>,
    /// Assignments that get another organization: the SIM card's id and the index in the list.
    pub moved: Vec<(i32, usize)>,
    /// Ends that the list contradicts, and entries that it lacks if it replaces the inventory: the
    /// SIM card's id, and valid from in microseconds since 1970.
    pub removed: Vec<(i32, i64)>,
    /// The first instant, in microseconds since 1970, at which a SIM card that was known before has
    /// another owner now.
    pub changed_from_us: Option<i64>,
}

/// What is stored of one SIM card.
#[derive(Default)]
pub(super) struct StoredSimCard {
    pub id: Option<i32>,
    /// The owners by the start of their assignments, in microseconds since 1970; `None` for an end.
    pub owners: BTreeMap<i64, Option<i32>>,
}

/// A stored assignment begins before one of the list ends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "SIM card {sim_card}: the file assigns it to {organization} until {}, but another assignment of it is stored \
     that begins on {}; correct valid-until, or load the complete inventory with --replace-inventory",
    shown(*valid_until_us), shown(*begins_us)
)]
pub(super) struct Overlap {
    sim_card: String,
    organization: String,
    valid_until_us: i64,
    begins_us: i64,
}

/// An instant as inventory files have it.
fn shown(instant_us: i64) -> String {
    let instant = DateTime::from_timestamp_micros(instant_us).unwrap_or(DateTime::<Utc>::MAX_UTC);
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

impl Changes {
    /// Adds what the entries of one SIM card, at these indexes of the list, change. `organizations` has
    /// the ids of the list's organizations. If the list `replace`s the inventory, the SIM card has no
    /// other entries.
    ///
    /// # Errors
    /// Returns an error if a stored assignment begins before one of the list ends.
    pub fn add_sim_card(
        &mut self,
        list: &AssignmentList,
        entries: Range<usize>,
        organizations: &[i32],
        stored: &StoredSimCard,
        replace: bool,
    ) -> Result<(), Overlap> {
        let sim_card = stored.id.map_or_else(
            || {
                self.new_sim_cards.push(entries.start);
                SimCardRef::New(self.new_sim_cards.len() - 1)
            },
            SimCardRef::Stored,
        );
        let before = self.lengths();
        for index in entries.clone() {
            let entry = list.get(index);
            let wanted = entry.organization.map(|index| organizations[index]);
            match (stored.owners.get(&entry.valid_from_us), stored.id) {
                (Some(owner), _) if *owner == wanted => {}
                // The SIM card's next assignment begins where this one ends.
                (Some(_), _) if entry.is_implied && !replace => {}
                (Some(_), Some(id)) => self.moved.push((id, index)),
                _ => self.added.push(Addition { index, sim_card }),
            }
            if let Some(id) = stored.id
                && entry.lasts_to_next
                && !replace
            {
                let until_us = list.get(index + 1).valid_from_us;
                let ends = ends_within(list, index, stored, until_us)?;
                self.removed
                    .extend(ends.into_iter().map(|end_us| (id, end_us)));
            }
        }
        if stored.id.is_some() && self.lengths() != before {
            let mut owners = if replace {
                BTreeMap::new()
            } else {
                stored.owners.clone()
            };
            for (_, end_us) in &self.removed[before.2..] {
                owners.remove(end_us);
            }
            for entry in entries.map(|index| list.get(index)) {
                let wanted = entry.organization.map(|index| organizations[index]);
                if !entry.is_implied || !owners.contains_key(&entry.valid_from_us) {
                    owners.insert(entry.valid_from_us, wanted);
                }
            }
            self.note_change(first_difference(&stored.owners, &owners));
        }
        Ok(())
    }

    fn lengths(&self) -> (usize, usize, usize) {
        (self.added.len(), self.moved.len(), self.removed.len())
    }

    /// Moves [`Self::changed_from_us`] to an earlier instant.
    pub fn note_change(&mut self, from_us: Option<i64>) {
        self.changed_from_us = self.changed_from_us.into_iter().chain(from_us).min();
    }
}

/// The first instant at which the owners differ.
fn first_difference(
    before: &BTreeMap<i64, Option<i32>>,
    after: &BTreeMap<i64, Option<i32>>,
) -> Option<i64> {
    let owner_at = |owners: &BTreeMap<i64, Option<i32>>, instant_us: i64| {
        let last = owners.range(..=instant_us).next_back();
        last.and_then(|(_, owner)| *owner)
    };
    let mut instants: Vec<i64> = before.keys().chain(after.keys()).copied().collect();
    instants.sort_unstable();
    instants
        .into_iter()
        .find(|&instant_us| owner_at(before, instant_us) != owner_at(after, instant_us))
}

/// The stored ends between the start of the list's entry at `index` and its end.
fn ends_within(
    list: &AssignmentList,
    index: usize,
    stored: &StoredSimCard,
    until_us: i64,
) -> Result<Vec<i64>, Overlap> {
    let entry = list.get(index);
    let within = stored.owners.range(entry.valid_from_us..until_us);
    let within = within.filter(|(start_us, _)| **start_us > entry.valid_from_us);
    within
        .map(|(&start_us, owner)| {
            if owner.is_none() {
                return Ok(start_us);
            }
            let organization = entry.organization.map(|index| &list.organizations()[index]);
            Err(Overlap {
                sim_card: entry.sim_card.to_owned(),
                organization: organization.map(ToString::to_string).unwrap_or_default(),
                valid_until_us: until_us,
                begins_us: start_us,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_instant_with_another_owner_is_found() {
        let owners = |owners: &[(i64, Option<i32>)]| owners.iter().copied().collect();
        let before: BTreeMap<_, _> = owners(&[(i64::MIN, Some(1)), (20, None), (30, Some(2))]);
        for (after, expected) in [
            (
                owners(&[(i64::MIN, Some(1)), (20, None), (30, Some(2))]),
                None,
            ),
            // Entries that change nothing.
            (
                owners(&[
                    (i64::MIN, Some(1)),
                    (10, Some(1)),
                    (20, None),
                    (25, None),
                    (30, Some(2)),
                ]),
                None,
            ),
            (
                owners(&[
                    (i64::MIN, Some(1)),
                    (15, Some(3)),
                    (20, None),
                    (30, Some(2)),
                ]),
                Some(15),
            ),
            (owners(&[(i64::MIN, Some(1)), (30, Some(2))]), Some(20)),
            (
                owners(&[(i64::MIN, Some(1)), (20, None), (40, Some(2))]),
                Some(30),
            ),
            (
                owners(&[(10, Some(1)), (20, None), (30, Some(2))]),
                Some(i64::MIN),
            ),
            (owners(&[]), Some(i64::MIN)),
        ] {
            assert_eq!(first_difference(&before, &after), expected, "{after:?}");
        }
    }
}
