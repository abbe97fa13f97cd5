//! What to do next, for the mistakes that everybody makes first.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use super::tls::is_refusal;
use crate::config::DatabaseUrl;

/// What to do where no connection to the database could be had, if there is anything to say.
pub(super) fn on_connecting(error: &tokio_postgres::Error, url: &DatabaseUrl) -> Option<String> {
    let database = || {
        url.parameters()
            .get_dbname()
            .unwrap_or("postgres")
            .to_owned()
    };
    let user = || url.parameters().get_user().unwrap_or("postgres").to_owned();
    let Some(code) = error.code() else {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        return match cause.as_str() {
            "password missing" => Some(format!("the server asks for one: {PASSWORD}")),
            _ if is_refusal(error) => None,
            _ => Some(
                "is the server running, and is that its address? DATABASE_URL or --database-url says where it is, as \
                 postgresql://user@host:5432/database"
                    .to_owned(),
            ),
        };
    };
    match *code {
        SqlState::INVALID_PASSWORD => Some(PASSWORD.to_owned()),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Some(format!(
            "the server must have a role {}, and a line in pg_hba.conf that lets it in",
            user()
        )),
        SqlState::INVALID_CATALOG_NAME => Some(format!(
            "make it with `createdb {}`, or correct the URL's last part",
            database()
        )),
        _ => None,
    }
}

const PASSWORD: &str = "put it into DATABASE_URL, as postgresql://user:password@host/database, with % and two \
                        hexadecimal digits for each of its special characters";

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
