//! `simusage completions`

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::stdout;

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Example: simusage completions bash > /etc/bash_completion.d/simusage")]
pub struct CompletionsArgs {
    /// Shell to generate completions for
    pub shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, program: clap::Command) -> anyhow::Result<ExitCode> {
    stdout::print(script(args.shell, program))
}

/// A script for the shell to source.
pub(crate) fn script(shell: Shell, mut program: clap::Command) -> Vec<u8> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut program, "simusage", &mut script);
    script
}
