//! `simusage man`

use std::process::ExitCode;

use clap::Args;

use super::stdout;

/// Options of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage man ingest > /usr/local/share/man/man1/simusage-ingest.1
  simusage man token create | man -l -")]
pub struct ManArgs {
    /// Subcommand to describe, such as ingest or token create [default: the program as a whole]
    pub subcommand: Vec<String>,
}

pub(super) fn run(args: &ManArgs, program: clap::Command) -> anyhow::Result<ExitCode> {
    stdout::print(page(&args.subcommand, program)?)
}

/// The manual page of the program or of one of its subcommands.
///
/// # Errors
/// Returns an error that lists the subcommands if `subcommand` does not exist.
pub(crate) fn page(subcommand: &[String], mut program: clap::Command) -> anyhow::Result<Vec<u8>> {
    // Adds the global options to the subcommands.
    program.build();
    let mut command = program;
    for name in subcommand {
        command = command.find_subcommand(name).cloned().ok_or_else(|| {
            let known = command.get_subcommands().map(clap::Command::get_name);
            let known: Vec<_> = known.filter(|&known| known != "help").collect();
            anyhow::anyhow!(
                "{} has no subcommand {name}; choose one of {}",
                command.get_name(),
                known.join(", ")
            )
        })?;
    }
    let mut page = vec![];
    clap_mangen::Man::new(command)
        .source(concat!("simusage ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    Ok(page)
}
