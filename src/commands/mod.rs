//! The subcommands. Each has a file with its options and its `run`; this one lists them.
//!
//! Results go to standard output, everything else to standard error.

pub(crate) mod completions;
mod format;
mod generate;
mod health;
mod ingest;
mod inventory;
pub(crate) mod man;
mod migrate;
mod serve;
mod stdout;
mod token;

use std::process::ExitCode;

use clap::Subcommand;

use crate::config::{Config, Overrides};

pub use completions::CompletionsArgs;
pub use format::FormatArg;
pub use generate::{GenerateCommand, GenerateInventoryArgs, GenerateUsageArgs};
pub use health::HealthArgs;
pub use ingest::IngestArgs;
pub use inventory::{CheckInventoryArgs, InventoryCommand};
pub use man::ManArgs;
pub use migrate::MigrateArgs;
pub use serve::ServeArgs;
pub use token::{CreateTokenArgs, TokenCommand};

// The comments are the help texts.
#[expect(missing_docs, reason = "`Command` itself has no help text")]
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create or update the database schema and apply the storage settings
    Migrate(MigrateArgs),
    /// Store usage records and load the inventory
    Ingest(IngestArgs),
    /// Check the inventory
    #[command(subcommand)]
    Inventory(InventoryCommand),
    /// Serve the REST API and the web page
    Serve(ServeArgs),
    /// Check that the server on this machine responds; for health checks of containers
    Health(HealthArgs),
    /// Manage API tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print shell completions
    Completions(CompletionsArgs),
    /// Print a manual page in roff format
    Man(ManArgs),
    /// Generate sample usage records or a sample inventory
    #[command(subcommand)]
    Generate(GenerateCommand),
}

impl Command {
    /// Checks combinations of options that clap cannot express.
    ///
    /// # Errors
    /// Returns the subcommand and the message to print with its usage.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match self {
            Self::Ingest(args) => args.check().map_err(|problem| ("ingest", problem)),
            _ => Ok(()),
        }
    }

    /// Copies the options that are also settings.
    pub fn override_settings(&self, overrides: &mut Overrides) {
        if let Self::Serve(args) = self {
            overrides.listen.clone_from(&args.listen);
        }
    }

    /// Runs the subcommand. `program` builds the whole command line, for completions and manual
    /// pages.
    ///
    /// # Errors
    /// Returns the subcommand's error.
    pub async fn run(
        self,
        config: &Config,
        program: impl Fn() -> clap::Command,
    ) -> anyhow::Result<ExitCode> {
        match self {
            Self::Migrate(args) => migrate::run(&args, config).await,
            Self::Ingest(args) => ingest::run(args, config).await,
            Self::Inventory(command) => inventory::run(command, config).await,
            Self::Serve(args) => serve::run(&args, config).await,
            Self::Health(args) => health::run(&args, config).await,
            Self::Token(command) => token::run(command, config).await,
            Self::Completions(args) => completions::run(&args, program()),
            Self::Man(args) => man::run(&args, program()),
            Self::Generate(command) => generate::run(command, config).await,
        }
    }
}
