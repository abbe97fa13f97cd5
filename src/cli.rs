//! The command line: what can be said, not what is done with it.

use std::path::PathBuf;

use chrono::{DateTime, Days, NaiveDate, Utc};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::config::LogFormat;
use crate::domain::OrganizationId;

/// Ingests the usage of SIM cards into `TimescaleDB` and answers how much was used when.
#[derive(Debug, Parser)]
#[command(
    name = "simusage",
    version,
    about,
    after_help = "\
Exit status: 0 done; 1 failed; 2 wrong usage or configuration; 3 done, but some records were rejected.
Settings come from config.toml, then the environment (SIMUSAGE_…, DATABASE_URL), then these options."
)]
pub struct Cli {
    /// Settings file [default: config.toml, where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the database is, as postgresql://user@host:port/database
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// How to write the log on standard error [default: text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Checks what the options cannot say one by one.
    ///
    /// # Errors
    /// `--source-id` without standard input, or with anything else; `--kafka` with CSV.
    pub fn check(&self) -> Result<(), clap::Error> {
        match &self.command {
            Command::Ingest(ingest)
                if ingest.kafka.is_some() && ingest.format == FormatName::Csv =>
            {
                let problem =
                    "--kafka reads JSON: a message has no header that could name CSV's columns";
                Err(Self::command().error(ErrorKind::ArgumentConflict, problem))
            }
            Command::Ingest(ingest)
                if ingest.source_id.is_some() && ingest.files != [PathBuf::from("-")] =>
            {
                let problem =
                    "--source-id names what standard input brings, so - must be the only FILE";
                Err(Self::command().error(ErrorKind::ArgumentConflict, problem))
            }
            _ => Ok(()),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring the database's schema and storage settings up to date
    Migrate(Migrate),
    /// Store usage records, and load the inventory
    Ingest(Ingest),
    /// Answer the REST API
    Serve(Serve),
    /// Say who may ask the API
    #[command(subcommand)]
    Token(Token),
    /// Print a shell's completions
    Completions(Completions),
    /// Print a page of the manual, in roff
    Man(Man),
    /// Make up usage records or an inventory, for demonstrations and benchmarks
    #[command(subcommand, hide = true)]
    Generate(Generate),
}

/// Options of `migrate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage migrate
  simusage migrate --check
  simusage migrate --database-url postgresql://simusage@db.example.net/simusage

It is safe to run at every start, and from several places at once. Storage settings ([storage] in config.toml) take
effect when this runs.")]
pub struct Migrate {
    /// Change nothing; exit with 1 if the schema or a storage setting is behind
    #[arg(long)]
    pub check: bool,
}

/// Options of `ingest`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
#[command(after_help = "\
Examples:
  simusage ingest --inventory inventory.json
  simusage ingest usage-*.ndjson
  simusage ingest usage-2020-02.csv.gz
  tail -n +1 -F usage.log | simusage ingest --source-id usage -
  simusage ingest --kafka broker:9092 --topic usage --group simusage
  simusage ingest --inventory inventory.json --replay-rejects
  simusage ingest --dry-run --inventory inventory.json usage-*.ndjson

A file that was ingested before is recognised under any name: what is new in it is stored, and nothing twice.")]
pub struct Ingest {
    /// Load the inventory first, from JSON or CSV: sim-card-id, org-id, valid-from
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// Format of the usage records; auto goes by the file's name, or else by its content
    #[arg(long, value_enum, default_value_t = FormatName::Auto)]
    pub format: FormatName,
    /// Name of what standard input brings: given again from its beginning, it goes on where it was left
    #[arg(long, value_name = "NAME")]
    pub source_id: Option<String>,
    /// Read from Kafka, until told to stop: addresses of some brokers, as host:9092,other:9092
    #[arg(long, value_name = "BROKERS", requires_all = ["topic", "group"], conflicts_with_all = ["files", "source_id"])]
    pub kafka: Option<String>,
    /// Topic to read; each message is one JSON object
    #[arg(long, value_name = "NAME", requires = "kafka")]
    pub topic: Option<String>,
    /// Consumer group to join; processes of one group share the topic's partitions
    #[arg(long, value_name = "NAME", requires = "kafka")]
    pub group: Option<String>,
    /// Stop at the end of what the topic holds
    #[arg(long, requires = "kafka")]
    pub until_end: bool,
    /// Answer /metrics for Prometheus at this address while the ingest goes on
    #[arg(long, value_name = "ADDR")]
    pub metrics_listen: Option<std::net::SocketAddr>,
    /// Stop when more records than this were rejected
    #[arg(long, value_name = "N")]
    pub max_rejects: Option<u64>,
    /// Try the records again that were rejected, by this inventory and this version
    #[arg(long, conflicts_with_all = ["files", "kafka", "source_id", "max_rejects"])]
    pub replay_rejects: bool,
    /// Read and account, and store nothing: neither records nor an inventory, nor how far a file was read. Every FILE
    /// is read from its beginning, whatever is stored of it. SIM cards are looked up in the --inventory FILE alone, or
    /// without one in the database; where that does not answer, they are not looked up
    #[arg(long, conflicts_with_all = ["kafka", "replay_rejects", "source_id", "metrics_listen"])]
    pub dry_run: bool,
    /// Print the summary as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Files of usage records, plain, gzip or zstd; - is standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["inventory", "kafka", "replay_rejects"])]
    pub files: Vec<PathBuf>,
}

/// The formats of usage records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// Whatever the source says
    Auto,
    /// A JSON object a line
    Ndjson,
    /// CSV under a header
    Csv,
}

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage serve
  simusage serve --listen 127.0.0.1:9000
  simusage serve --listen 0.0.0.0:8000 --allow-anonymous
  simusage serve --log-format json

SIGTERM and SIGINT end it once the requests in task are answered. What else can be set stands in [serve] of
config.toml.")]
pub struct Serve {
    /// Address and port to answer on [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Answer anyone, on any address, until the first token is created
    #[arg(long)]
    pub allow_anonymous: bool,
}

/// What can be done about tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Create a token and print it, this once. From the first one on, every request to /api needs one
    Create(CreateToken),
    /// List the tokens there are and were
    #[command(after_help = "\
Examples:
  simusage token list")]
    List,
    /// Revoke a token; servers refuse it within 5 seconds
    #[command(after_help = "\
Examples:
  simusage token revoke billing")]
    Revoke {
        /// The token's name
        name: String,
    },
}

/// Options of `token create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage token create billing
  simusage token create portal --organization x00g8 --expires 2099-12-31
  curl -H \"Authorization: Bearer $(simusage token create me)\" 127.0.0.1:8000/api/v1/inventory")]
pub struct CreateToken {
    /// What to call it; for good, because names of revoked tokens stay taken
    #[arg(value_parser = parse_token_name)]
    pub name: String,
    /// An organization whose data it sees, and nobody else's; can be given several times [default: everything]
    #[arg(long = "organization", value_name = "ID", value_parser = OrganizationId::parse)]
    pub organizations: Vec<OrganizationId>,
    /// The last day on which it is valid, in UTC, or the instant at which it ends, as 2030-12-31T12:00:00Z
    /// [default: never]
    #[arg(long, value_name = "DATE", value_parser = parse_expiry)]
    pub expires: Option<DateTime<Utc>>,
}

/// A name that fits into a line of a list or log.
fn parse_token_name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.chars().count())
        && text.trim() == text
        && !text.contains(char::is_control);
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 64 characters, on one line".to_owned())
    }
}

/// The first instant at which a token is no longer valid: a date includes that day.
fn parse_expiry(text: &str) -> Result<DateTime<Utc>, String> {
    let day_after = |date: NaiveDate| {
        Some(
            date.checked_add_days(Days::new(1))?
                .and_time(chrono::NaiveTime::MIN)
                .and_utc(),
        )
    };
    let instant = match text.parse::<NaiveDate>() {
        Ok(date) => day_after(date),
        Err(_) => DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|instant| instant.to_utc()),
    };
    let instant = instant.ok_or("not a date (ex: 2030-12-31 / 2030-12-31T12:00:00Z)")?;
    if instant <= Utc::now() {
        Err("this is past".to_owned())
    } else {
        Ok(instant)
    }
}

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Example: simusage completions bash > /etc/bash_completion.d/simusage")]
pub struct Completions {
    /// The shell that is to complete the command line
    pub shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: simusage man ingest > /usr/local/share/man/man1/simusage-ingest.1"
)]
pub struct Man {
    /// The subcommand whose page it is [default: the page of all of them]
    pub subcommand: Option<String>,
}

/// What can be made up. It is written to standard output.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Usage records of the SIM cards of an inventory, in the order of time
    Usage(GenerateUsage),
    /// An inventory, as CSV
    Inventory(GenerateInventory),
}

/// Options of `generate usage`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage generate usage --inventory inventory.json > usage.ndjson
  simusage generate usage --inventory inventory.json --start 2020-02-01 --days 28 --records 1000000 --format csv
  simusage generate usage --inventory inventory.json --follow --rate 100 | simusage ingest -
  simusage generate usage --inventory inventory.json --follow --kafka broker:9092 --topic usage")]
pub struct GenerateUsage {
    /// The inventory whose SIM cards are used
    #[arg(long, value_name = "FILE")]
    pub inventory: PathBuf,
    /// The first day
    #[arg(long, value_name = "DATE", default_value = "2020-02-01")]
    pub start: chrono::NaiveDate,
    /// How many days
    #[arg(long, default_value_t = 28, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// How many records in all
    #[arg(long, default_value_t = 40_320)]
    pub records: u64,
    /// What makes one run differ from another
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How to write the records; auto is ndjson
    #[arg(long, value_enum, default_value_t = FormatName::Ndjson)]
    pub format: FormatName,
    /// Make records of the present instead, until told to stop
    #[arg(long, conflicts_with_all = ["start", "days", "records"])]
    pub follow: bool,
    /// How many records a second
    #[arg(long, value_name = "N", requires = "follow", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Send each record to Kafka as a message, instead of writing it: addresses of some brokers
    #[arg(
        long,
        value_name = "BROKERS",
        requires = "topic",
        conflicts_with = "format"
    )]
    pub kafka: Option<String>,
    /// The topic to send to
    #[arg(long, value_name = "NAME", requires = "kafka")]
    pub topic: Option<String>,
}

/// Options of `generate inventory`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simusage generate inventory --sim-cards 1000 --organizations 20 > inventory.csv")]
pub struct GenerateInventory {
    /// How many SIM cards
    #[arg(long, default_value_t = 1_000)]
    pub sim_cards: u64,
    /// How many organizations
    #[arg(long, default_value_t = 20)]
    pub organizations: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_token_expires_at_the_end_of_a_day_or_at_an_instant() {
        assert_eq!(
            parse_expiry("2999-12-31").unwrap().to_rfc3339(),
            "3000-01-01T00:00:00+00:00"
        );
        assert_eq!(
            parse_expiry("2999-12-31T12:00:00+02:00")
                .unwrap()
                .to_rfc3339(),
            "2999-12-31T10:00:00+00:00"
        );
        assert!(
            parse_expiry(&Utc::now().date_naive().to_string()).is_ok(),
            "today is not over"
        );
        assert_eq!(parse_expiry("2020-01-01").unwrap_err(), "this is past");
        for text in ["", "tomorrow", "2999-02-30", "2999-12-31T12:00:00"] {
            assert!(
                parse_expiry(text).unwrap_err().starts_with("not a date"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_name_of_a_token_is_one_line() {
        for text in ["billing", "x00g8's portal", "größe"] {
            assert_eq!(parse_token_name(text).unwrap(), text);
        }
        for text in ["", " ", "a\nb", "a ", &"a".repeat(65)] {
            parse_token_name(text).unwrap_err();
        }
    }

    /// Subcommands that do something themselves, by all their words.
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
    fn the_help_of_each_subcommand_has_examples_that_are_right() {
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
                // As a shell takes it: each part of a pipe for itself, without where its output goes.
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
}
