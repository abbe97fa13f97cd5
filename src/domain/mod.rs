//! What simusage talks about, free of I/O: identifiers, granularities, intervals, pages, usage and inventory.

mod granularity;
mod id;
mod interval;
mod inventory;
mod page;
mod scope;
mod usage;

pub use granularity::{Granularity, UnknownGranularity};
pub use id::{InvalidId, OrganizationId, SimCardId};
pub use interval::{EmptyInterval, Interval, Parts};
pub use inventory::{Assignment, Inventory};
pub use page::Page;
pub use scope::Scope;
pub use usage::{UsageBucket, UsageSeries, UsageTotal, UsageTotals};
