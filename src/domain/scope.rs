//! The organizations whose data a request may read.

use std::sync::Arc;

/// The organizations whose data a request may read: all, or some. To the request, anything else
/// does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope(Option<Arc<[i32]>>);

impl Scope {
    /// All organizations.
    #[must_use]
    pub fn everything() -> Self {
        Self(None)
    }

    /// Only these organizations, by their keys in the database.
    #[must_use]
    pub fn of(organizations: impl Into<Arc<[i32]>>) -> Self {
        Self(Some(organizations.into()))
    }

    /// Whether it leaves out anything.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// The keys of the organizations; `None` for all.
    #[must_use]
    pub fn organizations(&self) -> Option<&[i32]> {
        self.0.as_deref()
    }
}
