//! `simusage inventory`

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::stdout;
use crate::config::Config;
use crate::db::{self, InventoryDifference};

/// Exit status of a check that found differences.
const SOME_DIFFER: u8 = 3;

/// The subcommands of `inventory`.
#[derive(Debug, Subcommand)]
pub enum InventoryCommand {
    /// List the usage that is stored for another organization than the inventory has now
    Check(CheckInventoryArgs),
}

/// Options of `inventory check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage inventory check
  simusage inventory check --json

A record keeps the organization that the inventory had when it was ingested, so the two differ after a change of the
inventory for a time in the past. The check reads the daily usage of every SIM card, which takes seconds per 10 million
days of SIM cards. The exit status is 3 if there are differences.")]
pub struct CheckInventoryArgs {
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(command: InventoryCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let InventoryCommand::Check(args) = command;
    let connection = db::connect_first(&config.database).await?;
    db::migrate::ensure_current(&connection)
        .await
        .with_context(|| format!("checking the schema of {}", config.database.url))?;
    let differences = db::inventory_differences(&connection).await;
    connection.close().await;
    let differences = differences.context("comparing stored records with the inventory")?;
    let text = if args.json {
        serde_json::to_string(&differences)? + "\n"
    } else {
        table(&differences)
    };
    stdout::print(text)?;
    Ok(if differences.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(SOME_DIFFER)
    })
}

fn table(differences: &[InventoryDifference]) -> String {
    if differences.is_empty() {
        return "all records agree with the inventory\n".to_owned();
    }
    let header = ["STORED FOR", "INVENTORY", "SIM CARDS", "RECORDS", "BYTES"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(differences.iter().map(|difference| {
        [
            difference.stored.clone(),
            difference.current.clone().unwrap_or_else(|| "-".to_owned()),
            difference.sim_cards.to_string(),
            difference.records.to_string(),
            difference.bytes.to_string(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for [stored, current, sim_cards, records, bytes] in &rows {
        let [w0, w1, w2, w3, w4] = widths;
        writeln!(
            text,
            "{stored:w0$}  {current:w1$}  {sim_cards:>w2$}  {records:>w3$}  {bytes:>w4$}"
        )
        .expect("a string accepts every write");
    }
    text
}
