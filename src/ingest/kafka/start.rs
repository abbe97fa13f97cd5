//! Where to start reading an assigned partition: at the position in the ledger, if Kafka still has
//! the messages that were there when it was stored.
//!
//! Offsets alone do not tell. A topic may have been deleted and created again, or a log truncated by
//! an unclean leader election or restored from a backup, and have grown past the position since.
//! Therefore the ledger also has the identifier of the topic, and the hash of the last message that
//! was read, which is read again.

use std::ops::Range;

use super::super::options::IfChanged;
use crate::db::KnownPartition;

/// Where to start reading a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// `None`: at the beginning, because nothing of the partition is stored.
    pub position: Option<i64>,
    /// The last message that was read. `None` if there is none or it is unknown.
    pub last: Option<LastMessage>,
}

/// A message that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastMessage {
    pub offset: i64,
    /// BLAKE3 of the message, with its key and timestamp.
    pub hash: [u8; 32],
}

/// What Kafka has of a partition.
#[derive(Debug, Clone)]
pub(super) struct Available {
    pub number: i32,
    /// The first message, and the offset after the last; `None` if the leader is unavailable.
    pub offsets: Option<Range<i64>>,
}

/// How a partition differs from what the ledger has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The topic was deleted and created again.
    Recreated { was: String, is: String },
    /// Messages were deleted before they were read.
    Deleted { first: i64 },
    /// The partition ends before the position.
    Truncated { end: i64 },
    /// Another message is at the offset of the last one that was read.
    Replaced,
}

/// A partition that has changed, and what the user may do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.describe())]
pub(super) struct PartitionChanged {
    /// Topic and number of the partition.
    pub name: String,
    /// The position in the ledger.
    pub position: i64,
    pub change: Change,
}

/// A new group finds that the first messages were deleted, and `--require-beginning` is given.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{name} begins at offset {first}: {DELETED_BEFORE}; without --require-beginning, it is read from \
     that offset"
)]
pub(super) struct NoBeginning {
    pub name: String,
    pub first: i64,
}

/// What a partition lacks whose first offset is not 0.
pub(super) const DELETED_BEFORE: &str =
    "the messages before it were deleted before this group could read them";

/// Why a partition cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Changed(#[from] PartitionChanged),
    #[error(transparent)]
    NoBeginning(#[from] NoBeginning),
}

impl LastMessage {
    /// The last message that the ledger has of a partition.
    pub fn of(known: &KnownPartition) -> Option<Self> {
        let hash = known.source.prefix_hash.as_slice().try_into().ok()?;
        Some(Self {
            offset: known.source.line - 1,
            hash,
        })
    }
}

impl Change {
    /// Finds out how a partition differs from what the ledger has of it, of which something is
    /// stored.
    pub fn find(
        known: &KnownPartition,
        topic_id: Option<&str>,
        offsets: Option<&Range<i64>>,
    ) -> Option<Self> {
        if let (Some(was), Some(is)) = (known.topic_id.as_deref(), topic_id)
            && was != is
        {
            let (was, is) = (was.to_owned(), is.to_owned());
            return Some(Self::Recreated { was, is });
        }
        let position = known.source.position;
        match offsets {
            Some(offsets) if position < offsets.start => Some(Self::Deleted {
                first: offsets.start,
            }),
            Some(offsets) if position > offsets.end => Some(Self::Truncated { end: offsets.end }),
            _ => None,
        }
    }
}

/// Where to read a partition that has changed.
pub(super) fn new_position(
    if_changed: IfChanged,
    position: i64,
    offsets: Option<&Range<i64>>,
) -> i64 {
    match (if_changed, offsets) {
        (IfChanged::Restart, offsets) => offsets.map_or(0, |offsets| offsets.start),
        (IfChanged::Continue, Some(offsets)) => {
            position.clamp(offsets.start, offsets.end.max(offsets.start))
        }
        (IfChanged::Continue, None) => position,
    }
}

impl PartitionChanged {
    /// What has changed.
    pub fn problem(&self) -> String {
        let Self { name, position, .. } = self;
        match &self.change {
            Change::Recreated { was, is } => format!(
                "the topic of {name} was deleted and created again: its identifier was {was} and is \
                 {is}"
            ),
            Change::Deleted { first } => format!(
                "{name} begins at offset {first}: messages from offset {position} were deleted before \
                 they were stored"
            ),
            Change::Truncated { end } => format!(
                "{name} ends at offset {end}, before offset {position} up to which it is stored: it \
                 was truncated, restored or created again"
            ),
            Change::Replaced => format!(
                "{name} has another message before offset {position} than the one that was stored: \
                 it was truncated, restored or created again, and has grown since"
            ),
        }
    }

    fn describe(&self) -> String {
        let (problem, position) = (self.problem(), self.position);
        match &self.change {
            Change::Deleted { first } => {
                format!("{problem}; to continue at offset {first}, pass --if-changed continue")
            }
            Change::Truncated { end } => format!(
                "{problem}; to read it from its beginning, which counts messages again that are \
                 still the same, pass --if-changed restart; to continue at offset {end}, pass \
                 --if-changed continue"
            ),
            Change::Recreated { .. } => format!(
                "{problem}; to read the new topic from its beginning, pass --if-changed restart; to \
                 continue at offset {position}, pass --if-changed continue"
            ),
            Change::Replaced => format!(
                "{problem}; to read it from its beginning, which counts messages again that are \
                 still the same, pass --if-changed restart; to continue at offset {position}, pass \
                 --if-changed continue"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::KnownSource;

    fn known(position: i64, topic_id: Option<&str>) -> KnownPartition {
        KnownPartition {
            source: KnownSource {
                position,
                ..KnownSource::unknown("usage/0")
            },
            topic_id: topic_id.map(str::to_owned),
        }
    }

    #[test]
    fn a_partition_that_still_has_the_position_has_not_changed() {
        for position in 3..=9 {
            let found = Change::find(&known(position, Some("a")), Some("a"), Some(&(3..9)));
            assert_eq!(found, None, "{position}");
        }
        assert_eq!(Change::find(&known(5, None), Some("a"), None), None);
        assert_eq!(Change::find(&known(5, Some("a")), None, None), None);
    }

    #[test]
    fn changes_are_found_and_a_new_topic_explains_the_others() {
        let find = |position, topic_id| {
            Change::find(&known(position, Some("a")), Some(topic_id), Some(&(3..9)))
        };
        assert_eq!(find(2, "a"), Some(Change::Deleted { first: 3 }));
        assert_eq!(find(10, "a"), Some(Change::Truncated { end: 9 }));
        for position in [2, 5, 10] {
            let (was, is) = ("a".to_owned(), "b".to_owned());
            assert_eq!(find(position, "b"), Some(Change::Recreated { was, is }));
        }
    }

    #[test]
    fn a_changed_partition_is_read_within_what_kafka_has() {
        let position = |if_changed, position| new_position(if_changed, position, Some(&(3..9)));
        assert_eq!(position(IfChanged::Restart, 5), 3);
        assert_eq!(position(IfChanged::Continue, 2), 3);
        assert_eq!(position(IfChanged::Continue, 5), 5);
        assert_eq!(position(IfChanged::Continue, 12), 9);
        assert_eq!(new_position(IfChanged::Restart, 5, None), 0);
        assert_eq!(new_position(IfChanged::Continue, 5, None), 5);
    }
}
