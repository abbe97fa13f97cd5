//! Which SIM card belongs to which organization.

use chrono::{DateTime, Utc};

use super::{OrganizationId, SimCardId};

/// From `valid_from` on, and until the next assignment of the same SIM card, the card belongs to the organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The SIM card.
    pub sim_card: SimCardId,
    /// The organization.
    pub organization: OrganizationId,
    /// Since when; `None` is "since ever".
    pub valid_from: Option<DateTime<Utc>>,
}
