//! What each subcommand does with the settings, and what it prints: results on standard output, the rest on
//! standard error.

mod token;

use std::io::Write as _;
use std::process::ExitCode;

use crate::cli::{Cli, Command, FormatName, Generate, GenerateUsage};
use crate::config::{Config, ConfigError, Overrides};
use crate::{db, generate, http, ingest, manual};

/// Exit status of an ingest that finished and rejected records.
const SOME_REJECTED: u8 = 3;

/// Loads the settings that a command line asks for.
///
/// # Errors
/// As [`Config::load`].
pub fn load_config(cli: &Cli) -> Result<Config, ConfigError> {
    let listen = match &cli.command {
        Command::Serve(serve) => serve.listen.clone(),
        _ => None,
    };
    let overrides = Overrides {
        database_url: cli.database_url.clone(),
        listen,
        log_format: cli.log_format,
    };
    Config::load(cli.config.as_deref(), std::env::vars(), &overrides)
}

/// Runs a subcommand.
///
/// # Errors
/// Whatever the subcommand fails with, for the log.
pub async fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Migrate(options) if options.check => check(&config).await,
        Command::Migrate(_) => migrate(&config).await,
        Command::Ingest(options) => ingest(options, &config).await,
        Command::Serve(options) => http::serve(&config, options.allow_anonymous)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::Token(options) => token::run(options, &config)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::Completions(options) => print(&manual::completions(options.shell)),
        Command::Man(options) => print(&manual::page(options.subcommand.as_deref())?),
        Command::Generate(options) => generate(options, &config).await,
    }
}

async fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let report = db::migrate::migrate(&config.database, &config.storage).await?;
    if report.is_empty() {
        println!("nothing to migrate");
    }
    print_report(&report, "applied");
    Ok(ExitCode::SUCCESS)
}

async fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let report = db::migrate::check(&config.database, &config.storage).await?;
    if report.is_empty() {
        println!("the schema is up to date");
        return Ok(ExitCode::SUCCESS);
    }
    print_report(&report, "pending");
    Ok(ExitCode::FAILURE)
}

fn print_report(report: &db::migrate::Report, word: &str) {
    for name in &report.migrations {
        println!("{word} {name}");
    }
    for name in &report.functions {
        println!("{word} function {name}");
    }
    for setting in &report.settings {
        println!("{word} {setting}");
    }
}

async fn generate(options: Generate, config: &Config) -> anyhow::Result<ExitCode> {
    let result = match options {
        Generate::Usage(options) => match options.kafka.as_deref().zip(options.topic.as_deref()) {
            Some((brokers, topic)) => {
                let output = ingest::Producer::new(&config.kafka, brokers, topic)?;
                generate_usage(&options, output).await
            }
            None => generate_usage(&options, std::io::stdout()).await,
        },
        Generate::Inventory(options) => generate::generate_inventory(
            options.sim_cards,
            options.organizations,
            std::io::stdout().lock(),
        ),
    };
    until_reader_left(result)
}

/// Writes to standard output.
fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    until_reader_left(
        std::io::stdout()
            .lock()
            .write_all(bytes)
            .map_err(anyhow::Error::from),
    )
}

/// Success, also where whoever reads has had enough, as `head` has.
fn until_reader_left(written: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let is_broken_pipe = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    match written {
        Err(error) if error.downcast_ref().is_some_and(is_broken_pipe) => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

async fn generate_usage(
    options: &GenerateUsage,
    output: impl std::io::Write,
) -> anyhow::Result<()> {
    let format = options
        .format
        .into_format()
        .unwrap_or(ingest::Format::Ndjson);
    let (inventory, seed) = (options.inventory.clone(), options.seed);
    if options.follow {
        let follow = generate::Follow {
            inventory,
            rate: options.rate,
            seed,
            format,
        };
        return generate::follow_usage(&follow, output).await;
    }
    let usage = generate::Usage {
        inventory,
        start: options.start,
        days: options.days,
        records: options.records,
        seed,
        format,
    };
    generate::generate_usage(&usage, output)
}

impl FormatName {
    /// The format; `None` for auto.
    fn into_format(self) -> Option<ingest::Format> {
        match self {
            Self::Auto => None,
            Self::Ndjson => Some(ingest::Format::Ndjson),
            Self::Csv => Some(ingest::Format::Csv),
        }
    }
}

async fn ingest(options: crate::cli::Ingest, config: &Config) -> anyhow::Result<ExitCode> {
    let source = |path: std::path::PathBuf| match path.to_str() {
        Some("-") => ingest::Source::Stdin,
        _ => ingest::Source::File(path),
    };
    let json = options.json;
    let kafka =
        options
            .kafka
            .zip(options.topic)
            .zip(options.group)
            .map(|((brokers, name), group)| ingest::Topic {
                brokers,
                name,
                group,
                until_end: options.until_end,
            });
    let counters = std::sync::Arc::<ingest::Counters>::default();
    if let Some(address) = options.metrics_listen {
        let counters = counters.clone();
        http::metrics::serve_metrics(&address.to_string(), move || counters.to_prometheus())?;
    }
    let options = ingest::Options {
        inventory: options.inventory,
        sources: options.files.into_iter().map(source).collect(),
        kafka,
        format: options.format.into_format(),
        source_id: options.source_id,
        max_rejects: options.max_rejects,
        replay_rejects: options.replay_rejects,
        dry_run: options.dry_run,
        counters,
    };
    let summary = ingest::ingest(config, options).await?;
    if json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("{summary}");
    }
    Ok(if summary.rejected > 0 {
        ExitCode::from(SOME_REJECTED)
    } else {
        ExitCode::SUCCESS
    })
}
