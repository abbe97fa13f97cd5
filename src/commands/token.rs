//! `simusage token`: who may ask the API.

use std::fmt::Write as _;

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::cli::{self, CreateToken};
use crate::config::Config;
use crate::db::tokens::{self, ListedToken, NewToken};
use crate::db::{self, Connection};
use crate::token::Token;

/// Runs a subcommand.
///
/// # Errors
/// A name or organization that does not fit, or a database that refuses or is away.
pub(super) async fn run(options: cli::Token, config: &Config) -> anyhow::Result<()> {
    let mut connection = db::connect(&config.database).await?;
    db::migrate::ensure_current(&connection)
        .await
        .with_context(|| format!("checking the schema of {}", config.database.url))?;
    let result = match options {
        cli::Token::Create(options) => create(&options, &mut connection).await,
        cli::Token::List => tokens::list(&connection)
            .await
            .map(|tokens| print!("{}", table(&tokens, Utc::now()))),
        cli::Token::Revoke { name } => tokens::revoke(&connection, &name).await,
    };
    connection.close().await;
    result
}

/// Creates a token. Its text is all that is printed, so that a script can take it.
async fn create(options: &CreateToken, connection: &mut Connection) -> anyhow::Result<()> {
    let token = Token::generate().context("making up a token")?;
    let CreateToken {
        name,
        organizations,
        expires,
    } = options;
    tokens::create(
        connection,
        &NewToken {
            name,
            hash: token.hash(),
            organizations,
            expires_at: *expires,
        },
    )
    .await?;
    println!("{}", token.reveal());
    Ok(())
}

/// The tokens in columns. What may be long comes last.
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

/// Whether the token can be used now.
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
    fn the_list_lines_up_and_says_which_tokens_can_be_used() {
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
