//! `simusage man`

use std::process::ExitCode;

use clap::Args;

use super::stdout;

/// Options of `man`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: simusage man ingest > /usr/local/share/man/man1/simusage-ingest.1"
)]
pub struct ManArgs {
    /// Subcommand to describe [default: the program as a whole]
    pub subcommand: Option<String>,
}

pub(super) fn run(args: &ManArgs, program: clap::Command) -> anyhow::Result<ExitCode> {
    stdout::print(&page(args.subcommand.as_deref(), program)?)
}

/// The manual page of the program or of one of its subcommands.
///
/// # Errors
/// Returns an error that lists the subcommands if `subcommand` does not exist.
pub(crate) fn page(
    subcommand: Option<&str>,
    mut program: clap::Command,
) -> anyhow::Result<Vec<u8>> {
    // Adds the global options to the subcommands.
    program.build();
    let command = match subcommand {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            let known: Vec<_> = program
                .get_subcommands()
                .filter(|known| !known.is_hide_set())
                .collect();
            let known: Vec<_> = known.iter().map(|known| known.get_name()).collect();
            anyhow::anyhow!(
                "there is no subcommand {name}; choose one of {}",
                known.join(", ")
            )
        })?,
    };
    let mut page = vec![];
    clap_mangen::Man::new(command)
        .source(concat!("simusage ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    Ok(page)
}
