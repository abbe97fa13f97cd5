//! The next step after a failed connection, for common mistakes.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use super::tls::is_tls_failure;
use crate::config::{DatabaseUrl, PasswordFile};

const SET_PASSWORD: &str = "set it in PGPASSWORD, in ~/.pgpass, or in DATABASE_URL, as \
                            postgresql://user:password@host/database with special characters as % and two \
                            hexadecimal digits (e.g. %40 for @)";

const CHECK_ADDRESS: &str = "is the server running at this address? set the address in DATABASE_URL, in PGHOST and \
                             PGPORT, or with --database-url (e.g. postgresql://user@host:5432/database)";

/// What to do about a failed connection, if the error has a common cause.
pub(super) fn on_connecting(error: &tokio_postgres::Error, url: &DatabaseUrl) -> Option<String> {
    let parameters = url.parameters();
    let Some(code) = error.code() else {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        return match cause.as_str() {
            "password missing" => Some(match url.password_file() {
                PasswordFile::Exposed(file) => format!(
                    "the server requires a password, and {0} is ignored because others can read it; run \
                     `chmod 600 {0}`",
                    file.display()
                ),
                _ => format!("the server requires a password: {SET_PASSWORD}"),
            }),
            _ if is_tls_failure(error) => None,
            _ => Some(CHECK_ADDRESS.to_owned()),
        };
    };
    match *code {
        SqlState::INVALID_PASSWORD => Some(match url.password_file() {
            PasswordFile::Used(file) => format!("correct the password in {}", file.display()),
            _ => format!("correct the password: {SET_PASSWORD}"),
        }),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Some(format!(
            "check that the role {} exists and that pg_hba.conf lets it connect",
            parameters.get_user().unwrap_or("postgres")
        )),
        SqlState::INVALID_CATALOG_NAME => Some(format!(
            "create it with `createdb {}`, or correct the database name in the URL",
            parameters.get_dbname().unwrap_or("postgres")
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_advice_repeats_a_password() {
        let url: DatabaseUrl = "postgresql://me:secret@127.0.0.1:1/things".parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime
            .block_on(url.parameters().connect(tokio_postgres::NoTls))
            .err()
            .unwrap();
        let advice = on_connecting(&error, &url).unwrap();
        assert!(
            advice.contains("is the server running") && !advice.contains("secret"),
            "{advice}"
        );
    }
}
