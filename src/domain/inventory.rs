//! The inventory: which organization owned which SIM card when.

use chrono::{DateTime, Utc};

use super::id::{OrganizationId, SimCardId};

/// Assigns a SIM card to an organization, from `valid_from` until the SIM card's next assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The SIM card that is assigned.
    pub sim_card: SimCardId,
    /// Its owner from `valid_from` on.
    pub organization: OrganizationId,
    /// `None`: from the beginning of time.
    pub valid_from: Option<DateTime<Utc>>,
}
