//! The error that stops a run.

use crate::db::WriteError;

/// An error that stops a run. It records whether the database is unavailable, because the final
/// refresh would then only wait for it again.
pub(super) struct Failure {
    error: anyhow::Error,
    is_database_unavailable: bool,
}

impl Failure {
    /// Adds `text` in front of the error.
    pub fn context(self, text: String) -> Self {
        Self {
            error: self.error.context(text),
            ..self
        }
    }

    pub fn is_database_unavailable(&self) -> bool {
        self.is_database_unavailable
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self {
            is_database_unavailable: error.is_transient(),
            error: error.into(),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            error,
            is_database_unavailable: false,
        }
    }
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}
