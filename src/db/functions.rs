//! The SQL functions that queries call: `sql/functions`, embedded and reapplied when a file
//! changes.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;

use super::connect::Connection;

/// A file of `sql/functions`, which creates the function of the same name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    pub name: &'static str,
    sql: &'static str,
}

/// `function!("usage_series")` embeds `sql/functions/usage_series.sql`.
macro_rules! function {
    ($name:literal) => {
        Function {
            name: $name,
            sql: include_str!(concat!("../../sql/functions/", $name, ".sql")),
        }
    };
}

/// Every function, each after those it calls.
pub(super) const FUNCTIONS: &[Function] = &[
    function!("begin_posting"),
    function!("end_page"),
    function!("end_period"),
    function!("is_posting_open"),
    function!("close_level"),
    function!("archive_records"),
    function!("unused_since"),
    function!("drop_archived"),
    function!("drop_merged"),
    function!("drop_expired"),
    function!("check_kept"),
    function!("posting_runs"),
    function!("sim_card_runs"),
    function!("time_within"),
    function!("in_organizations"),
    function!("sim_card_parts"),
    function!("sees_sim_card"),
    function!("organization_parts"),
    function!("feed_of"),
    function!("feeds"),
    function!("usage_freshness"),
    function!("usage_series"),
    function!("sim_card_list"),
    function!("organization_list"),
    function!("usage_by_organization"),
    function!("inventory_differences"),
];

/// The names and checksums of all functions: the parameters of `schema_history/version.sql`.
pub(super) fn checksums() -> (Vec<&'static str>, Vec<String>) {
    FUNCTIONS
        .iter()
        .map(|function| (function.name, checksum(function.sql)))
        .unzip()
}

/// SHA-256 of an SQL file, in hexadecimal.
pub(super) fn checksum(sql: &str) -> String {
    Sha256::digest(sql)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Applies functions and records them, all or none, so that callers always match what they call.
pub(super) async fn apply(
    connection: &mut Connection,
    functions: &[Function],
) -> Result<(), tokio_postgres::Error> {
    let record = include_str!("../../sql/schema_history/record_function.sql");
    let mut transaction = connection.transaction().await?;
    for function in functions {
        replace(&mut transaction, function).await?;
        let checksum = checksum(function.sql);
        transaction
            .execute(
                record,
                &[&function.name, &checksum, &env!("CARGO_PKG_VERSION")],
            )
            .await?;
    }
    transaction.commit().await
}

/// Creates or replaces a function, and drops the old one where `create or replace` cannot change
/// it. Otherwise keeps it, with the privileges granted on it and the views that depend on it.
async fn replace(
    transaction: &mut Transaction<'_>,
    function: &Function,
) -> Result<(), tokio_postgres::Error> {
    let before = signatures(transaction, function.name).await?;
    let savepoint = transaction.transaction().await?;
    match savepoint.batch_execute(function.sql).await {
        Ok(()) => savepoint.commit().await?,
        // Other columns, or other names of the parameters.
        Err(error) if error.code() == Some(&SqlState::INVALID_FUNCTION_DEFINITION) => {
            savepoint.rollback().await?;
            drop_functions(transaction, &before).await?;
            return transaction.batch_execute(function.sql).await;
        }
        Err(error) => return Err(error),
    }
    // Other types of the parameters have added an overload.
    if signatures(transaction, function.name).await?.len() > before.len() {
        drop_functions(transaction, &before).await?;
    }
    Ok(())
}

async fn signatures(
    transaction: &Transaction<'_>,
    name: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let statement = include_str!("../../sql/schema_history/signatures.sql");
    let rows = transaction.query(statement, &[&name]).await?;
    Ok(rows.iter().map(|row| row.get("signature")).collect())
}

async fn drop_functions(
    transaction: &Transaction<'_>,
    signatures: &[String],
) -> Result<(), tokio_postgres::Error> {
    for signature in signatures {
        transaction
            .batch_execute(&format!("drop function {signature}"))
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_embedded_and_creates_the_function_of_its_name() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/functions");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let mut embedded: Vec<_> = FUNCTIONS
            .iter()
            .map(|function| format!("{}.sql", function.name))
            .collect();
        embedded.sort();
        assert_eq!(files, embedded);
        for Function { name, sql } in FUNCTIONS {
            assert!(
                sql.contains(&format!("\ncreate or replace function {name}(")),
                "{name}"
            );
        }
    }

    #[test]
    fn functions_come_after_those_they_call() {
        for (index, Function { name, sql }) in FUNCTIONS.iter().enumerate() {
            let body = sql.split_once("\nas $$").unwrap().1;
            for later in &FUNCTIONS[index + 1..] {
                assert!(!body.contains(&format!("{}(", later.name)), "{name}");
            }
        }
    }
}
