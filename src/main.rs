//! The `simusage` program: parses the command line, starts the log, runs the subcommand and sets
//! the exit status.

use std::process::ExitCode;

use clap::Parser as _;
use simusage::cli::Cli;
use simusage::config::LogFormat;
use simusage::{db, logging};

/// Exit status of invalid usage or configuration. clap uses the same.
const INVALID_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.check().unwrap_or_else(|error| error.exit());
    let config = match cli.load_config() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("simusage: {error}");
            return ExitCode::from(INVALID_USAGE);
        }
    };
    let format = config.log.format;
    logging::start(format);
    let outcome = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.run(&config)));
    outcome.unwrap_or_else(|error| {
        let text = db::with_causes(&error);
        match format {
            LogFormat::Text => eprintln!("simusage: {text}"),
            LogFormat::Json => log::error!("{text}"),
        }
        ExitCode::FAILURE
    })
}
