//! `simusage migrate`

use std::process::ExitCode;

use clap::Args;

use crate::config::Config;
use crate::db::migrate::{self, Report};

/// Options of `migrate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage migrate
  simusage migrate --check
  simusage migrate --database-url postgresql://simusage@db.example.net/simusage

It is safe to run this at every start, and from several machines at the same time. Changes to the storage settings
([storage] in config.toml) take effect when it runs.")]
pub struct MigrateArgs {
    /// Report pending changes without applying them; exit with status 1 if there are any
    #[arg(long)]
    pub check: bool,
}

pub(super) async fn run(args: &MigrateArgs, config: &Config) -> anyhow::Result<ExitCode> {
    if args.check {
        check(config).await
    } else {
        migrate(config).await
    }
}

async fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let report = migrate::migrate(&config.database, &config.storage).await?;
    if report.is_empty() {
        println!("nothing to migrate");
    }
    print_report(&report, "applied");
    Ok(ExitCode::SUCCESS)
}

async fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let report = migrate::check(&config.database, &config.storage).await?;
    if report.is_empty() {
        println!("the schema is up to date");
        return Ok(ExitCode::SUCCESS);
    }
    print_report(&report, "pending");
    Ok(ExitCode::FAILURE)
}

fn print_report(report: &Report, state: &str) {
    for name in &report.migrations {
        println!("{state} {name}");
    }
    for name in &report.functions {
        println!("{state} function {name}");
    }
    for setting in &report.settings {
        println!("{state} {setting}");
    }
}
