//! `simusage token`

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};

use super::stdout;
use crate::config::Config;
use crate::db::tokens::{self, ListedToken, NewToken};
use crate::db::{self, Connection};
use crate::domain::OrganizationId;
use crate::token::Token;

/// The subcommands of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it; it is not shown again. After the first one, every request to /api needs a token
    Create(CreateTokenArgs),
    /// List all tokens, including expired and revoked ones
    #[command(after_help = "\
Examples:
  simusage token list")]
    List,
    /// Revoke a token; servers reject it within 5 seconds
    #[command(after_help = "\
Examples:
  simusage token revoke billing")]
    Revoke {
        /// Name of the token
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
pub struct CreateTokenArgs {
    /// Name of the token. The names of revoked tokens cannot be reused
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// Organization whose data the token can read; repeat for several [default: all organizations]
    #[arg(long = "organization", value_name = "ID", value_parser = OrganizationId::parse)]
    pub organizations: Vec<OrganizationId>,
    /// Last day (UTC) on which the token is valid, or the exact time at which it expires, such as 2030-12-31T12:00:00Z
    /// [default: never]
    #[arg(long, value_name = "DATE", value_parser = parse_expiry)]
    pub expires: Option<DateTime<Utc>>,
}

/// A name that fits into one line of a list or log.
fn parse_name(text: &str) -> Result<String, &'static str> {
    let fits = (1..=64).contains(&text.chars().count())
        && text.trim() == text
        && !text.contains(char::is_control);
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a name must have 1 to 64 characters on one line, with no space at either end")
    }
}

/// The first instant at which the token is no longer valid. A date includes that day.
fn parse_expiry(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let instant = match text.parse::<NaiveDate>() {
        Ok(date) => date
            .checked_add_days(Days::new(1))
            .map(|next| next.and_time(NaiveTime::MIN).and_utc()),
        Err(_) => DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|instant| instant.to_utc()),
    };
    let instant = instant.ok_or("not a date (e.g. 2030-12-31 / 2030-12-31T12:00:00Z)")?;
    if instant <= Utc::now() {
        Err("this date is in the past")
    } else {
        Ok(instant)
    }
}

pub(super) async fn run(command: TokenCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let mut connection = db::connect_first(&config.database).await?;
    db::migrate::ensure_current(&connection)
        .await
        .with_context(|| format!("checking the schema of {}", config.database.url))?;
    let result = match command {
        TokenCommand::Create(args) => create(&args, &mut connection).await,
        TokenCommand::List => match tokens::list(&connection).await {
            Ok(tokens) => stdout::print(table(&tokens, Utc::now())).map(drop),
            Err(error) => Err(error),
        },
        TokenCommand::Revoke { name } => tokens::revoke(&connection, &name).await,
    };
    connection.close().await;
    result.map(|()| ExitCode::SUCCESS)
}

/// Creates a token and prints nothing but the token, for use in scripts. A token that cannot be printed
/// is not created.
async fn create(args: &CreateTokenArgs, connection: &mut Connection) -> anyhow::Result<()> {
    ensure!(
        !stdout::is_discarded(),
        "standard output is closed or /dev/null, so the token would be lost; nothing was created"
    );
    let token = Token::generate().context("generating a token")?;
    let new = NewToken {
        name: &args.name,
        hash: token.hash(),
        organizations: &args.organizations,
        expires_at: args.expires,
    };
    let print = || {
        let printed = stdout::deliver(format!("{}\n", token.reveal()));
        printed.context("printing the token, which was therefore not created")
    };
    tokens::create(connection, &new, print).await
}

/// The tokens in aligned columns. The column of unlimited width is last.
fn table(tokens: &[ListedToken], now: DateTime<Utc>) -> String {
    let header = ["NAME", "STATE", "CREATED", "EXPIRES", "ORGANIZATIONS"].map(str::to_owned);
    let time = |instant: DateTime<Utc>| instant.to_rfc3339_opts(SecondsFormat::Secs, true);
    let rows: Vec<[String; 5]> = std::iter::once(header)
        .chain(tokens.iter().map(|token| {
            [
                token.name.clone(),
                state(token, now).to_owned(),
                time(token.created_at),
                token.expires_at.map_or_else(|| "never".to_owned(), time),
                token
                    .organizations
                    .as_ref()
                    .map_or_else(|| "everything".to_owned(), |names| names.join(",")),
            ]
        }))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2), width(3)];
    rows.iter().fold(String::new(), |mut text, row| {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        text + &row[4] + "\n"
    })
}

/// The state of the token at `now`.
fn state(token: &ListedToken, now: DateTime<Utc>) -> &'static str {
    if token.revoked_at.is_some() {
        "revoked"
    } else if token.expires_at.is_some_and(|expires_at| expires_at <= now) {
        "expired"
    } else {
        "valid"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(
            parse_expiry("2020-01-01").unwrap_err(),
            "this date is in the past"
        );
        for text in ["", "tomorrow", "2999-02-30", "2999-12-31T12:00:00"] {
            assert!(
                parse_expiry(text).unwrap_err().starts_with("not a date"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_name_is_one_line() {
        for text in ["billing", "x00g8's portal", "größe"] {
            assert_eq!(parse_name(text).unwrap(), text);
        }
        for text in ["", " ", "a\nb", "a ", &"a".repeat(65)] {
            parse_name(text).unwrap_err();
        }
    }

    #[test]
    fn the_list_has_aligned_columns_and_the_state_of_each_token() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let token =
            |name: &str, organizations: Option<Vec<&str>>, expires_at, revoked_at| ListedToken {
                name: name.to_owned(),
                organizations: organizations
                    .map(|names| names.into_iter().map(str::to_owned).collect()),
                created_at: at("2030-01-01T00:00:00.5Z"),
                expires_at,
                revoked_at,
            };
        let tokens = [
            token("all", None, None, None),
            token(
                "größer",
                Some(vec!["x00g8", "x00g9"]),
                Some(at("2031-01-01T00:00:00Z")),
                None,
            ),
            token("past", None, Some(at("2030-02-01T00:00:00Z")), None),
            token("gone", None, None, Some(at("2030-01-02T00:00:00Z"))),
        ];
        let expected = "\
NAME    STATE    CREATED               EXPIRES               ORGANIZATIONS
all     valid    2030-01-01T00:00:00Z  never                 everything
größer  valid    2030-01-01T00:00:00Z  2031-01-01T00:00:00Z  x00g8,x00g9
past    expired  2030-01-01T00:00:00Z  2030-02-01T00:00:00Z  everything
gone    revoked  2030-01-01T00:00:00Z  never                 everything
";
        assert_eq!(table(&tokens, at("2030-02-01T00:00:00Z")), expected);
    }
}
