//! The domain types: identifiers, granularities, intervals, pages, usage and inventory. No I/O.

mod buckets;
mod granularity;
mod id;
mod interval;
mod inventory;
mod page;
mod scope;
mod usage;
mod zone;

pub use buckets::{Buckets, Pieces, TooManyBuckets};
pub use granularity::{Granularity, Unit, UnknownGranularity};
pub use id::{InvalidId, OrganizationId, SimCardId};
pub use interval::{EmptyInterval, Interval, Parts};
pub use inventory::{
    Assignment, AssignmentList, AssignmentListBuilder, Conflict, ConflictKind, InventoryChanges,
    ListedAssignment,
};
pub use page::{Page, Window};
pub use scope::Scope;
pub use usage::{Freshness, Order, Subject, UsageBucket, UsageTotal};
pub use zone::{UnknownZone, Zone};
