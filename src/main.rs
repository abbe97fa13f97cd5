//! The `simusage` program: parses, logs, dispatches, and turns the outcome into an exit status.

use std::process::ExitCode;

use clap::Parser as _;
use simusage::{cli, commands, config, db, logging};

/// Exit status of wrong usage or configuration; clap exits with the same.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    cli.check().unwrap_or_else(|error| error.exit());
    let config = match commands::load_config(&cli) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("simusage: {error}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let format = config.log.format;
    logging::start(format);
    let outcome = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(commands::run(cli.command, config)));
    outcome.unwrap_or_else(|error| {
        let text = db::with_causes(&error);
        match format {
            config::LogFormat::Text => eprintln!("simusage: {text}"),
            config::LogFormat::Json => log::error!("{text}"),
        }
        ExitCode::FAILURE
    })
}
