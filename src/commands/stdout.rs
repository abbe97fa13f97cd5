//! Writing to standard output, without a panic if it is full or closed.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;

/// Prints a text or file. Succeeds if the reader has closed the pipe, as `head` does.
pub(super) fn print(content: impl AsRef<[u8]>) -> anyhow::Result<ExitCode> {
    ignore_broken_pipe(deliver(content))
}

/// Prints a text that must arrive.
pub(super) fn deliver(content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(content.as_ref())
        .and_then(|()| stdout.flush());
    written.context("cannot write to standard output")
}

/// Succeeds if the reader has closed the pipe, as `head` does.
pub(super) fn ignore_broken_pipe(written: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match written {
        Err(error) if error.downcast_ref().is_some_and(is_broken_pipe) => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

/// Whether what is printed is lost: standard output is closed or `/dev/null`, which the standard
/// library opens in place of a closed one.
pub(super) fn is_discarded() -> bool {
    let target = std::fs::read_link("/proc/self/fd/1");
    target.is_ok_and(|target| target == std::path::Path::new("/dev/null"))
}
