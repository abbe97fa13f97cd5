//! The command line: the global options. [`commands`](crate::commands) lists the subcommands.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};

use crate::commands::Command;
use crate::config::{Config, ConfigError, LogFormat, Overrides};
use crate::signals::Hangups;

/// The heading of the options that every subcommand has.
const GLOBAL: &str = "Global options";

#[expect(missing_docs, reason = "`about` says the same without Markdown")]
#[derive(Debug, Parser)]
#[command(
    name = "simusage",
    version,
    about = "Stores the data usage of SIM cards in TimescaleDB and serves it over a REST API",
    after_help = "\
Exit status: 0 success; 1 failure; 2 invalid usage or configuration; 3 success, but some records were rejected.

Settings come from config.toml, then the environment (SIMUSAGE_…, DATABASE_URL), then the options above. Each source
overrides the ones before it. What the database URL lacks is completed as psql does (PGHOST, PGUSER, ~/.pgpass, …)."
)]
pub struct Cli {
    /// Settings file [default: config.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub config: Option<PathBuf>,
    /// Database to use, as postgresql://user@host:port/database [default: database.url in the
    /// settings]
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL)]
    pub database_url: Option<String>,
    /// Format of the log on standard error, text or json [default: log.format in the settings]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = GLOBAL, hide_possible_values = true)]
    pub log_format: Option<LogFormat>,
    #[expect(missing_docs, reason = "clap lists the subcommands")]
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Checks combinations of options that clap cannot express.
    ///
    /// # Errors
    /// Returns clap's error, which prints the usage.
    pub fn check(&self) -> Result<(), clap::Error> {
        self.command.check().map_err(|(subcommand, problem)| {
            let mut program = Self::command();
            program.build();
            match program.find_subcommand_mut(subcommand) {
                Some(command) => command.error(ErrorKind::ArgumentConflict, problem),
                None => program.error(ErrorKind::ArgumentConflict, problem),
            }
        })
    }

    /// Loads the settings. Options take precedence over all other sources.
    ///
    /// # Errors
    /// Returns the error of [`Config::load`].
    pub fn load_config(&self) -> Result<Config, ConfigError> {
        let mut overrides = Overrides {
            database_url: self.database_url.clone(),
            listen: None,
            log_format: self.log_format,
        };
        self.command.override_settings(&mut overrides);
        Config::load(self.config.as_deref(), environment()?, &overrides)
    }

    /// Runs the subcommand.
    ///
    /// # Errors
    /// Returns the subcommand's error.
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        // Neither a terminal that closes nor a request to reload ends the process.
        let _hangups = Hangups::listen().context("listening for signals")?;
        self.command.run(config, Self::command).await
    }
}

/// The environment variables that are text. Those of other programs may have any value.
fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = vec![];
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name == "DATABASE_URL" || name.starts_with("SIMUSAGE_") => {
                return Err(ConfigError::NotUtf8 { name });
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use clap_complete::Shell;

    use super::*;
    use crate::commands::{completions, man};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The subcommands without subcommands, each with its full name.
    fn leaves(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let subcommands: Vec<_> = command
            .get_subcommands()
            .filter(|command| command.get_name() != "help")
            .collect();
        if subcommands.is_empty() {
            return vec![(path.trim_start().to_owned(), command.clone())];
        }
        subcommands
            .into_iter()
            .flat_map(|command| leaves(command, &format!("{path} {}", command.get_name())))
            .collect()
    }

    #[test]
    fn the_examples_in_the_help_of_each_subcommand_parse() {
        for (name, mut command) in leaves(&Cli::command(), "") {
            let help = command.render_long_help().to_string();
            let examples: Vec<&str> =
                match (help.split_once("Examples:\n"), help.split_once("Example: ")) {
                    (Some((_, examples)), _) => examples
                        .lines()
                        .take_while(|line| line.starts_with("  "))
                        .collect(),
                    (None, Some((_, example))) => example.lines().take(1).collect(),
                    (None, None) => panic!("{name} has no examples"),
                };
            for example in examples {
                assert!(
                    example.contains(&format!("simusage {name}")),
                    "{name}: {example}"
                );
                // Each command of a pipeline, without redirections.
                for part in example
                    .split('|')
                    .filter(|part| part.trim_start().starts_with("simusage "))
                {
                    let words = part.split_whitespace().take_while(|&word| word != ">");
                    let cli = Cli::try_parse_from(words)
                        .unwrap_or_else(|error| panic!("{example}: {error}"));
                    cli.check()
                        .unwrap_or_else(|error| panic!("{example}: {error}"));
                }
            }
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    /// The visible subcommands, each with its first long option.
    fn subcommands() -> Vec<(String, Option<String>)> {
        let command = Cli::command();
        let visible = command
            .get_subcommands()
            .filter(|subcommand| !subcommand.is_hide_set());
        let first_option = |subcommand: &clap::Command| {
            subcommand
                .get_arguments()
                .find_map(|argument| argument.get_long())
                .map(str::to_owned)
        };
        visible
            .map(|subcommand| (subcommand.get_name().to_owned(), first_option(subcommand)))
            .collect()
    }

    #[test]
    fn every_shell_completes_every_subcommand_and_its_options() {
        assert!(subcommands().len() >= 5);
        for &shell in <Shell as clap::ValueEnum>::value_variants() {
            let script = text(completions::script(shell, Cli::command()));
            for (name, option) in subcommands() {
                assert!(script.contains(&name), "{shell}: {name}");
                assert!(
                    option.is_none_or(|option| script.contains(&option)),
                    "{shell}: {name}"
                );
            }
        }
    }

    #[test]
    fn every_subcommand_has_a_manual_page() {
        let overview = text(man::page(&[], Cli::command()).unwrap());
        for (name, option) in subcommands() {
            assert!(
                overview.contains(&format!("simusage\\-{name}(1)")),
                "{name}: {overview}"
            );
            let page = text(man::page(std::slice::from_ref(&name), Cli::command()).unwrap());
            assert!(
                page.contains(&format!("simusage\\-{name}")) && page.contains("database\\-url"),
                "{page}"
            );
            assert!(
                option.is_none_or(|option| page.contains(&option.replace('-', "\\-"))),
                "{page}"
            );
        }
        let nested = man::page(&["token".to_owned(), "create".to_owned()], Cli::command());
        assert!(text(nested.unwrap()).contains("\\-\\-organization"));
        let error = man::page(&["nothing".to_owned()], Cli::command()).unwrap_err();
        let message =
            "simusage has no subcommand nothing; choose one of migrate, ingest, inventory, serve";
        assert!(error.to_string().starts_with(message), "{error}");
    }
}
