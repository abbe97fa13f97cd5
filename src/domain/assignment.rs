//! Which organization a SIM card belongs to, and since when.

use chrono::{DateTime, Utc};

use super::{OrganizationId, SimCardId};

/// From an instant on, and until the SIM card's next assignment, it belongs to the organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The SIM card.
    pub sim_card: SimCardId,
    /// The organization.
    pub organization: OrganizationId,
    /// From when on; `None` is since ever.
    pub valid_from: Option<DateTime<Utc>>,
}
