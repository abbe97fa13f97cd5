//! What simusage talks about, free of I/O: identifiers, granularities, intervals, records and buckets.

mod assignment;
mod granularity;
mod id;
mod interval;
mod usage;

pub use assignment::Assignment;
pub use granularity::{Granularity, UnknownGranularity};
pub use id::{InvalidId, OrganizationId, SimCardId};
pub use interval::{EmptyInterval, Interval, Parts};
pub use usage::{UsageBucket, UsageSeries, UsageTotal, UsageTotals};
