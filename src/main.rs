//! The `simusage` program: parses the command line, starts the log, runs the subcommand and sets
//! the exit status.

use std::process::ExitCode;

use clap::Parser as _;
use simusage::cli::Cli;
use simusage::config::LogFormat;
use simusage::printable::printable;
use simusage::{db, logging};

/// Exit status of invalid usage or configuration. clap uses the same.
const INVALID_USAGE: u8 = 2;

fn main() -> ExitCode {
    let parsed = Cli::try_parse().and_then(|cli| cli.check().map(|()| cli));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let config = match cli.load_config() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("simusage: {}", printable(&error.to_string()));
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
            LogFormat::Text => eprintln!("simusage: {}", printable(&text)),
            LogFormat::Json => log::error!("{text}"),
        }
        ExitCode::FAILURE
    })
}

/// Prints clap's error, or its help.
fn explain(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let safe: String = text.lines().map(|line| printable(line) + "\n").collect();
    if safe.trim_end() == text.trim_end() {
        error.exit()
    }
    // Without colours.
    eprint!("{safe}");
    ExitCode::from(INVALID_USAGE)
}
