//! `simusage generate`

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::NaiveDate;
use clap::{Args, Subcommand, ValueEnum, value_parser};

use super::stdout;
use crate::config::Config;
use crate::{generate, ingest};

/// The subcommands of `generate`.
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// Generate usage records for the SIM cards of an inventory, in time order
    Usage(GenerateUsageArgs),
    /// Generate an inventory as CSV
    Inventory(GenerateInventoryArgs),
}

/// Options of `generate usage`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage generate usage --inventory inventory.json > usage.ndjson
  simusage generate usage --inventory inventory.json --start 2020-02-01 --days 28 --records 1000000 --format csv
  simusage generate usage --inventory inventory.json --follow --rate 100 | simusage ingest -
  simusage generate usage --inventory inventory.json --follow --kafka broker:9092 --topic usage")]
pub struct GenerateUsageArgs {
    /// Inventory whose SIM cards are used
    #[arg(long, value_name = "FILE")]
    pub inventory: PathBuf,
    /// First day
    #[arg(long, value_name = "DATE", default_value = "2020-02-01")]
    pub start: NaiveDate,
    /// Number of days
    #[arg(long, value_name = "N", default_value_t = 28, value_parser = value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// Total number of records
    #[arg(long, value_name = "N", default_value_t = 40_320)]
    pub records: u64,
    /// Seed for the random numbers; the same seed generates the same records
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Output format
    #[arg(long, value_enum, default_value_t = OutputFormat::Ndjson)]
    pub format: OutputFormat,
    /// Generate records with the current time until stopped
    #[arg(long, conflicts_with_all = ["start", "days", "records"])]
    pub follow: bool,
    /// Records per second with --follow
    #[arg(long, value_name = "N", requires = "follow", default_value_t = 10)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Send records to Kafka instead of standard output; BROKERS are the bootstrap brokers, as host:9092,other:9092
    #[arg(
        long,
        value_name = "BROKERS",
        requires = "topic",
        conflicts_with = "format"
    )]
    pub kafka: Option<String>,
    /// Topic to send to
    #[arg(long, value_name = "NAME", requires = "kafka")]
    pub topic: Option<String>,
}

/// The formats that samples are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// One JSON object per line
    Ndjson,
    /// CSV with a header line
    Csv,
}

/// Options of `generate inventory`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage generate inventory --sim-cards 1000 --organizations 20 > inventory.csv")]
pub struct GenerateInventoryArgs {
    /// Number of SIM cards
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub sim_cards: u64,
    /// Number of organizations
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub organizations: u64,
}

pub(super) async fn run(command: GenerateCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let result = match command {
        GenerateCommand::Usage(args) => match args.kafka.as_deref().zip(args.topic.as_deref()) {
            Some((brokers, topic)) => {
                let output = ingest::Producer::new(&config.kafka, brokers, topic)?;
                generate_usage(&args, output).await
            }
            None => generate_usage(&args, io::stdout()).await,
        },
        GenerateCommand::Inventory(args) => {
            generate::generate_inventory(args.sim_cards, args.organizations, io::stdout().lock())
        }
    };
    stdout::ignore_broken_pipe(result)
}

async fn generate_usage(args: &GenerateUsageArgs, output: impl io::Write) -> anyhow::Result<()> {
    let format = match args.format {
        OutputFormat::Ndjson => ingest::Format::Ndjson,
        OutputFormat::Csv => ingest::Format::Csv,
    };
    let (inventory, seed) = (args.inventory.clone(), args.seed);
    if args.follow {
        let follow = generate::Follow {
            inventory,
            rate: args.rate,
            seed,
            format,
        };
        return generate::follow_usage(&follow, output).await;
    }
    let usage = generate::Usage {
        inventory,
        start: args.start,
        days: args.days,
        records: args.records,
        seed,
        format,
    };
    generate::generate_usage(&usage, output)
}
