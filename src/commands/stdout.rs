//! Writing to standard output.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// Prints a file.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    let written = io::stdout().lock().write_all(bytes);
    ignore_broken_pipe(written.map_err(anyhow::Error::from))
}

/// Succeeds if the reader has closed the pipe, as `head` does.
pub(super) fn ignore_broken_pipe(written: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match written {
        Err(error) if error.downcast_ref().is_some_and(is_broken_pipe) => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}
