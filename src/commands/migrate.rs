//! `simusage migrate`

use std::process::ExitCode;

use clap::Args;

use super::stdout;
use crate::config::Config;
use crate::db::migrate::{self, Report};

/// Options of `migrate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage migrate
  simusage migrate --check
  simusage migrate --database-url postgresql://simusage@db.example.net/simusage

It is safe to run this at every start, and from several machines at the same time. Changes to [storage] and [feeds] in
config.toml take effect when it runs.")]
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
    let report = migrate::migrate(&config.database, &config.storage, &config.feeds).await?;
    if report.is_empty() {
        return stdout::print("nothing to migrate\n");
    }
    stdout::print(text(&report, "applied"))
}

async fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let report = migrate::check(&config.database, &config.storage, &config.feeds).await?;
    if report.is_empty() {
        return stdout::print("the schema is up to date\n");
    }
    stdout::print(text(&report, "pending"))?;
    Ok(ExitCode::FAILURE)
}

/// The report, one change per line.
fn text(report: &Report, state: &str) -> String {
    let migrations = report.migrations.iter().map(|&name| name.to_owned());
    let functions = report
        .functions
        .iter()
        .map(|name| format!("function {name}"));
    let settings = report.settings.iter().cloned();
    let changes = migrations.chain(functions).chain(settings);
    changes.fold(String::new(), |text, change| {
        text + state + " " + &change + "\n"
    })
}
