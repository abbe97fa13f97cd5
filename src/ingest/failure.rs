//! The error that stops a run or a source.

use crate::db::{Claim, WriteError};

/// An error that stops a run, or only one of its sources. It records whether the database is
/// unavailable, because the final refresh would then only wait for it again.
pub(super) struct Failure {
    error: anyhow::Error,
    is_database_unavailable: bool,
    is_of_source: bool,
}

impl Failure {
    /// Adds `text` in front of the error.
    pub fn context(self, text: String) -> Self {
        Self {
            error: self.error.context(text),
            ..self
        }
    }

    /// An error of one source. The run continues with the next source.
    pub fn of_source(error: anyhow::Error) -> Self {
        Self {
            error,
            is_database_unavailable: false,
            is_of_source: true,
        }
    }

    /// An error in storing the source of `claim`, which covers what was committed.
    pub fn in_source(error: WriteError, claim: &Claim) -> Self {
        let Claim { name, position, .. } = claim;
        let position = match error {
            WriteError::CommitsLost(position) => position,
            // Perhaps the database has lost records of this source, too.
            WriteError::InventoryLost => return Self::from(error).context(name.to_string()),
            error => {
                let context = format!("{name} is stored up to byte {position}");
                return Self::from(error).context(context);
            }
        };
        let next_step = if claim.resumable {
            "run the same command again to store the rest"
        } else {
            "store the rest again, from that byte on"
        };
        Self::of_source(anyhow::anyhow!(
            "{error}, as after a failover to a standby that had not received them: {name} is stored up to byte \
             {position}; {next_step}"
        ))
    }

    pub fn is_of_source(&self) -> bool {
        self.is_of_source
    }

    pub fn is_database_unavailable(&self) -> bool {
        self.is_database_unavailable
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self {
            is_database_unavailable: error.is_transient(),
            // Another process stores this source, but not necessarily the next one.
            is_of_source: matches!(error, WriteError::Overtaken | WriteError::CommitsLost(_)),
            error: error.into(),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            error,
            is_database_unavailable: false,
            is_of_source: false,
        }
    }
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}
