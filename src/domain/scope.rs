//! Whose usage a request may see.

use std::sync::Arc;

/// Whose usage a request may see: everybody's, or that of some organizations. What lies outside does not exist, as
/// far as the request is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope(Option<Arc<[i32]>>);

impl Scope {
    /// Everything there is.
    #[must_use]
    pub fn everything() -> Self {
        Self(None)
    }

    /// What belongs to these organizations, by their keys in the database.
    #[must_use]
    pub fn of(organizations: impl Into<Arc<[i32]>>) -> Self {
        Self(Some(organizations.into()))
    }

    /// The organizations' keys; `None` where there is no limit.
    #[must_use]
    pub fn organizations(&self) -> Option<&[i32]> {
        self.0.as_deref()
    }
}
