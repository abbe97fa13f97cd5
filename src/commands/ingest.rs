//! `simusage ingest`

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::format::FormatArg;
use super::stdout;
use crate::config::Config;
use crate::db;
use crate::http::metrics_server::serve_metrics;
use crate::ingest::{self, Counters, Format, IfChanged, Options, Source, Topic};

/// Exit status of an ingest that completed and rejected records.
const SOME_REJECTED: u8 = 3;

/// How often a long-running ingest deletes old rejected records.
const DELETE_INTERVAL: Duration = Duration::from_hours(24);

/// Options of `ingest`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a command-line option"
)]
#[command(after_help = "\
Examples:
  simusage ingest --inventory inventory.json
  simusage ingest --inventory complete.csv --replace-inventory
  simusage ingest usage-*.ndjson
  simusage ingest usage-2020-02.csv.gz
  tail -n +1 -F usage.log | simusage ingest --source-id usage -
  simusage ingest --complete exported.csv
  simusage ingest --as-new second-gateway.ndjson
  simusage ingest --kafka broker:9092 --topic usage --group simusage
  simusage ingest --kafka broker:9092 --topic usage --group simusage --if-changed restart
  simusage ingest --inventory inventory.json --replay-rejects
  simusage ingest --dry-run --inventory inventory.json usage-*.ndjson

Files are identified by their content. Ingesting a file again, under any name, stores only what was appended to it.
A changed copy of a stored file is refused, because its unchanged records would count twice. If all of its records are
new and only look the same as stored ones, pass --as-new to store them.

--dry-run reads each FILE from the start, even if it was ingested before. It looks up SIM cards in the --inventory
file or, without one, in the database. If the database is unavailable, SIM cards are not checked.")]
pub struct IngestArgs {
    /// Load the inventory from FILE first; JSON or CSV with sim-card-id, org-id, valid-from and valid-until
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// Remove all assignments from the inventory that FILE lacks. Stored records keep their organizations
    #[arg(long, requires = "inventory", conflicts_with = "dry_run")]
    pub replace_inventory: bool,
    /// Format of the records; auto detects it from the file's name or content
    #[arg(long, value_enum, default_value_t = FormatArg(None))]
    pub format: FormatArg,
    /// Nothing will be appended to the input or was cut from it: the last line of CSV needs no line ending
    #[arg(long, conflicts_with_all = ["kafka", "replay_rejects"])]
    pub complete: bool,
    /// Store all records of FILE even if some look as if they were already stored
    #[arg(long, conflicts_with_all = ["kafka", "replay_rejects", "dry_run"])]
    pub as_new: bool,
    /// Name the stream on standard input. If it is sent again from its start, records already stored are skipped
    #[arg(long, value_name = "NAME")]
    pub source_id: Option<String>,
    /// Read from Kafka until stopped; BROKERS are the bootstrap brokers, as host:9092,other:9092
    #[arg(long, value_name = "BROKERS", requires_all = ["topic", "group"], conflicts_with_all = ["files", "source_id"])]
    pub kafka: Option<String>,
    /// Topic to read; each message is one JSON object
    #[arg(long, value_name = "NAME", requires = "kafka")]
    pub topic: Option<String>,
    /// Consumer group to join; its members share the topic's partitions
    #[arg(long, value_name = "NAME", requires = "kafka")]
    pub group: Option<String>,
    /// Stop at the end of the topic instead of waiting for more messages
    #[arg(long, requires = "kafka")]
    pub until_end: bool,
    /// What to do if messages of a partition were deleted or replaced since they were read: restart reads the
    /// partition from its beginning, continue resumes at the stored offset [default: fail]
    #[arg(long, value_enum, value_name = "ACTION", requires = "kafka")]
    pub if_changed: Option<IfChangedArg>,
    /// Fail if the first messages of a partition were deleted before the group could read them
    #[arg(long, requires = "kafka")]
    pub require_beginning: bool,
    /// Address and port on which to serve Prometheus metrics at /metrics [default: none]
    #[arg(long, value_name = "ADDR")]
    pub metrics_listen: Option<String>,
    /// Stop when more than N records have been rejected [default: no limit]
    #[arg(long, value_name = "N")]
    pub max_rejects: Option<u64>,
    /// Retry rejected records using the current inventory
    #[arg(long, conflicts_with_all = ["files", "kafka", "source_id", "max_rejects"])]
    pub replay_rejects: bool,
    /// Validate the input without writing to the database
    #[arg(long, conflicts_with_all = ["kafka", "replay_rejects", "source_id", "metrics_listen"])]
    pub dry_run: bool,
    /// Print the summary as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Files of usage records, plain or compressed with gzip or zstd; - reads standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["inventory", "kafka", "replay_rejects"])]
    pub files: Vec<PathBuf>,
}

/// The value of `--if-changed`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum IfChangedArg {
    /// Read the partition from its beginning
    Restart,
    /// Resume at the stored offset
    Continue,
}

impl From<IfChangedArg> for IfChanged {
    fn from(argument: IfChangedArg) -> Self {
        match argument {
            IfChangedArg::Restart => Self::Restart,
            IfChangedArg::Continue => Self::Continue,
        }
    }
}

impl IngestArgs {
    /// Checks combinations that clap cannot express.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.kafka.is_some() && self.format.0.is_some_and(Format::has_header) {
            return Err("--kafka reads JSON messages, so --format csv cannot be used with it");
        }
        if self.source_id.is_some() && self.files != [PathBuf::from("-")] {
            return Err("--source-id names standard input, so - must be the only FILE");
        }
        Ok(())
    }

    fn into_options(self, counters: Arc<Counters>) -> Options {
        let topic = self.kafka.zip(self.topic).zip(self.group);
        let kafka = topic.map(|((brokers, name), group)| Topic {
            brokers,
            name,
            group,
            until_end: self.until_end,
            if_changed: self.if_changed.map(Into::into),
            require_beginning: self.require_beginning,
        });
        let source = |path: PathBuf| match path.to_str() {
            Some("-") => Source::Stdin,
            _ => Source::File(path),
        };
        Options {
            inventory: self.inventory,
            replace_inventory: self.replace_inventory,
            sources: self.files.into_iter().map(source).collect(),
            kafka,
            format: self.format.0,
            complete: self.complete,
            as_new: self.as_new,
            source_id: self.source_id,
            max_rejects: self.max_rejects,
            replay_rejects: self.replay_rejects,
            dry_run: self.dry_run,
            counters,
        }
    }
}

/// Deletes rejected records by age. A failure does not concern the ingest, and the next one tries again.
async fn delete_old_rejected(config: &Config) {
    let days = config.ingest.keep_rejected_days;
    match db::delete_old_rejected(&config.database, days).await {
        Ok(0) => {}
        Ok(count) => log::info!(
            "deleted {count} rejected records older than {days} days (ingest.keep_rejected_days)"
        ),
        Err(error) => log::warn!("cannot delete old rejected records: {error}"),
    }
}

async fn delete_old_rejected_daily(config: &Config) -> Infallible {
    loop {
        tokio::time::sleep(DELETE_INTERVAL).await;
        delete_old_rejected(config).await;
    }
}

pub(super) async fn run(args: IngestArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let counters = Arc::<Counters>::default();
    if let Some(address) = &args.metrics_listen {
        let counters = counters.clone();
        serve_metrics(address, move || counters.to_prometheus())?;
    }
    let deletes_rejected = !args.dry_run && config.ingest.keep_rejected_days > 0;
    let is_endless = args.kafka.is_some();
    let ingest = Box::pin(ingest::ingest(config, args.into_options(counters)));
    let summary = tokio::select! {
        ended = ingest => ended?,
        never = delete_old_rejected_daily(config), if deletes_rejected && is_endless => match never {},
    };
    if deletes_rejected {
        delete_old_rejected(config).await;
    }
    let text = if json {
        serde_json::to_string(&summary)?
    } else {
        summary.to_string()
    };
    stdout::print(text + "\n").context("the ingest has ended, but its summary is not shown")?;
    let failed: Vec<&str> = summary.failed().collect();
    anyhow::ensure!(
        failed.is_empty(),
        "{} of {} sources failed: {}; see the errors above. Correct them and run the command \
         again; it stores only what is missing",
        failed.len(),
        summary.sources.len(),
        failed.join(", ")
    );
    Ok(if summary.has_rejected() {
        ExitCode::from(SOME_REJECTED)
    } else {
        ExitCode::SUCCESS
    })
}
