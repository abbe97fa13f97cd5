//! The `simusage` program: parses the command line, starts the log, runs the subcommand and sets
//! the exit status.

use std::io::{self, Write as _};
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
            let format = requested_log_format();
            logging::start(format);
            report(format, &error.to_string());
            return ExitCode::from(INVALID_USAGE);
        }
    };
    let format = config.log.format;
    logging::start(format);
    let outcome = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.run(&config)));
    outcome.unwrap_or_else(|error| {
        report(format, &db::with_causes(&error));
        ExitCode::FAILURE
    })
}

/// Prints the error that ends the program.
fn report(format: LogFormat, error: &str) {
    match format {
        LogFormat::Text => print_error(&format!("simusage: {}\n", printable(error))),
        LogFormat::Json => log::error!("{error}"),
    }
}

/// Prints to standard error. If that is full or closed, nothing else can be told.
fn print_error(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// The format that the command line or the environment requests, for errors about the command line and
/// the settings themselves.
fn requested_log_format() -> LogFormat {
    let arguments: Vec<_> = std::env::args_os().collect();
    let separate = arguments
        .windows(2)
        .any(|pair| pair[0] == "--log-format" && pair[1] == "json");
    let has_option = separate
        || arguments
            .iter()
            .any(|argument| argument == "--log-format=json");
    let variable = std::env::var_os("SIMUSAGE_LOG_FORMAT");
    if has_option || variable.is_some_and(|format| format == "json") {
        LogFormat::Json
    } else {
        LogFormat::Text
    }
}

/// Prints clap's error, or its help.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help, or the version. A reader may close the pipe, as `head` does.
        let is_full = |error: &io::Error| error.kind() != io::ErrorKind::BrokenPipe;
        return match error.print().and_then(|()| io::stdout().flush()) {
            Err(error) if is_full(&error) => {
                report(
                    LogFormat::Text,
                    &format!("cannot write to standard output: {error}"),
                );
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        };
    }
    if requested_log_format() == LogFormat::Json {
        logging::start(LogFormat::Json);
        report(LogFormat::Json, error.render().to_string().trim_end());
        return ExitCode::from(INVALID_USAGE);
    }
    let text = error.render().to_string();
    let safe: String = text.lines().map(|line| printable(line) + "\n").collect();
    if safe.trim_end() == text.trim_end() {
        error.exit()
    }
    // Without colours.
    print_error(&safe);
    ExitCode::from(INVALID_USAGE)
}
