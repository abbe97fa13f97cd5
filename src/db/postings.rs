//! Postings: the numbers of batches, and what happens once a range of them has ended. ARCHITECTURE.md
//! explains the design; migration 0002 has the tables.
//!
//! Closing a page or a period never blocks a batch. Each step can be repeated after a failure, and
//! readers use its result only when `usage_levels` says so, which is the last statement.

use std::sync::Mutex;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::try_join;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::Connection;
use super::copy::{Table, copy_in, encode_usage_record, set_posting};
use super::error::WriteError;
use super::inventory_index::RecordIds;
use crate::failpoint;

/// The ids of a placeholder record. No SIM card and no organization has the id 0.
const PLACEHOLDER: RecordIds = RecordIds {
    sim_card: 0,
    organization: 0,
};

/// The pause before looking again whether batches are still open.
const OPEN_BATCH_PAUSE: Duration = Duration::from_millis(5);

/// The pause before retrying when another session is refreshing the same aggregate.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Refreshes a window in a single pass. In batches, TimescaleDB looks at every bucket of the window,
/// and where a period ends, a window spans a million of empty ones.
const SINGLE_PASS: &str = r#", options => '{"buckets_per_batch": 0}'"#;

/// The postings of a period.
const PERIOD: i64 = 1 << 40;

/// The postings of a span.
const SPAN: i64 = PERIOD << 5;

const RECENT: &str = "organization_usage_recent";
const ORGANIZATIONS: &str = "organization_usage";
const ORGANIZATION_DAYS: &str = "organization_usage_daily";
const SIM_CARDS: &str = "sim_card_usage";
const MERGED: &str = "sim_card_usage_merged";
const LARGE: &str = "large_usage";
const DETAILED: &str = "detailed_usage";

/// Prepares a session for closing pages and periods.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a setting.
pub async fn prepare_closing(client: &Client) -> Result<(), WriteError> {
    client
        .query(
            include_str!("../../sql/ingest/set_closing_settings.sql"),
            &[],
        )
        .await?;
    Ok(())
}

/// Creates the chunks of the period that is `ahead` periods after the current one, if they are
/// missing, in a separate transaction. A transaction that creates a chunk for its own records blocks
/// others that need it, and so does the first one that writes to a chunk's columnstore.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement. A retry is safe.
pub async fn open_chunks(connection: &mut Connection, ahead: i64) -> Result<(), WriteError> {
    let missing = connection
        .query_one(
            include_str!("../../sql/ingest/missing_chunks.sql"),
            &[&ahead],
        )
        .await?;
    let period: i64 = missing.get("period");
    let tables = [
        (Table::Bulk, missing.get::<_, bool>("bulk")),
        (Table::Recent, missing.get("recent")),
    ];
    if tables.iter().all(|(_, is_missing)| !is_missing) {
        return Ok(());
    }
    let mut tuple = BytesMut::new();
    encode_usage_record(&mut tuple, 0, PLACEHOLDER, 0);
    set_posting(&mut tuple, period);
    let tuple = tuple.freeze();
    let transaction = connection.transaction().await?;
    for (table, _) in tables.into_iter().filter(|&(_, is_missing)| is_missing) {
        copy_in(&transaction, table, &tuple).await?;
    }
    transaction
        .execute(include_str!("../../sql/ingest/allow_changes.sql"), &[])
        .await?;
    transaction
        .execute(
            include_str!("../../sql/ingest/delete_placeholders.sql"),
            &[&period],
        )
        .await?;
    Ok(transaction.commit().await?)
}

/// What the aggregates of whole periods do not contain yet.
#[derive(Debug, Clone, Copy)]
pub struct OpenPeriods {
    /// The number of records.
    pub records: u64,
    /// How many of them are in the columnstore.
    pub bulk: u64,
    /// How long ago a period was closed; `None` if none was.
    pub since_closing: Option<Duration>,
}

/// Reads what the aggregates of whole periods do not contain yet.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn open_periods(client: &Client) -> Result<OpenPeriods, WriteError> {
    let row = client
        .query_one(include_str!("../../sql/ingest/open_periods.sql"), &[])
        .await?;
    let count = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or_default();
    let seconds: Option<f64> = row.get("seconds");
    Ok(OpenPeriods {
        records: count("records"),
        bulk: count("bulk"),
        since_closing: seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
    })
}

/// Ends the current page, waits for its batches, and adds up what it has in the row store. Returns
/// whether there was anything.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement. A retry is safe.
pub async fn close_page(client: &Client) -> Result<bool, WriteError> {
    let open = client
        .query_one(include_str!("../../sql/ingest/open_page.sql"), &[])
        .await?;
    if open.get::<_, i64>("records") == 0 {
        return Ok(false);
    }
    let boundary: i64 = client
        .query_one(include_str!("../../sql/ingest/end_page.sql"), &[])
        .await?
        .get("boundary");
    wait_for_batches(client, boundary).await?;
    let options = refresh_options(client).await?;
    refresh(client, RECENT, open.get("closed_before"), boundary, options).await?;
    failpoint::pass("before-closing-page");
    close_level(client, RECENT, boundary).await?;
    Ok(true)
}

/// Ends the current period, waits for its batches, copies what the row store has of it to the
/// columnstore, and refreshes the aggregates, with `helper` at the same time if there is one.
/// Returns whether there was anything.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement. A retry is safe.
pub async fn close_period(
    connection: &mut Connection,
    helper: Option<&Connection>,
) -> Result<bool, WriteError> {
    if open_periods(connection).await?.records == 0 {
        return Ok(false);
    }
    // First, so that the batches of the next period do not wait for each other.
    open_chunks(connection, 1).await?;
    let client: &Client = connection;
    let boundary: i64 = client
        .query_one(include_str!("../../sql/ingest/end_period.sql"), &[])
        .await?
        .get("boundary");
    wait_for_batches(client, boundary).await?;
    client
        .execute(
            include_str!("../../sql/ingest/archive_records.sql"),
            &[&boundary],
        )
        .await
        .map_err(|error| WriteError::from(error).during("copying records to the columnstore"))?;
    failpoint::pass("after-archiving");
    let options = refresh_options(client).await?;
    let organizations = level_periods(client, ORGANIZATIONS, boundary).await?;
    // SIM cards are closed last, so these are all periods that any level lacks.
    let sim_cards = level_periods(client, SIM_CARDS, boundary).await?;
    for (rare, has_any) in [
        (LARGE, sim_cards.iter().any(|period| period.is_large)),
        (DETAILED, sim_cards.iter().any(|period| period.is_detailed)),
    ] {
        if let Some(first) = sim_cards.first().filter(|_| has_any) {
            refresh(client, rare, first.start, boundary, options).await?;
            close_level(client, rare, boundary).await?;
        }
    }
    let of_level = |level, periods: Vec<LevelPeriod>| {
        let windows = periods.into_iter().rev();
        windows.map(move |period| (level, period.start))
    };
    // A stack, with the first SIM cards on top: they take longest.
    let windows = of_level(ORGANIZATIONS, organizations).chain(of_level(SIM_CARDS, sim_cards));
    let windows: Mutex<Vec<_>> = Mutex::new(windows.collect());
    let next = || {
        windows
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .pop()
    };
    let work = async |client: &Client| -> Result<(), WriteError> {
        while let Some((level, start)) = next() {
            refresh(client, level, start, start + PERIOD, options).await?;
        }
        Ok(())
    };
    match helper {
        Some(helper) => try_join(work(client), work(helper)).await.map(drop)?,
        None => work(client).await?,
    }
    let days = level_periods(client, ORGANIZATION_DAYS, boundary).await?;
    if let Some(first) = days.first() {
        refresh(client, ORGANIZATION_DAYS, first.start, boundary, options).await?;
    }
    for level in [ORGANIZATIONS, ORGANIZATION_DAYS, SIM_CARDS] {
        failpoint::pass("before-closing-period");
        close_level(client, level, boundary).await?;
    }
    Ok(true)
}

/// Merges the rows of SIM cards of the next span of 32 closed periods, if they have records of the
/// same days. Returns whether they are merged now.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement. A retry is safe.
pub async fn merge_span(client: &Client) -> Result<bool, WriteError> {
    let next = client
        .query_opt(include_str!("../../sql/ingest/next_span.sql"), &[])
        .await?;
    let Some(next) = next else {
        return Ok(false);
    };
    let (span, is_spread): (i64, bool) = (next.get("span"), next.get("is_spread"));
    let mut is_merged = false;
    if is_spread {
        let options = refresh_options(client).await?;
        is_merged = match refresh(client, MERGED, span, span + SPAN, options).await {
            // The sum of a day of each period fits into bigint, that of all periods may not.
            Err(error) if error.code() == Some(&SqlState::NUMERIC_VALUE_OUT_OF_RANGE) => false,
            refreshed => refreshed.map(|()| true)?,
        };
    }
    failpoint::pass("before-deciding-span");
    client
        .execute(
            include_str!("../../sql/ingest/decide_span.sql"),
            &[&span, &is_merged],
        )
        .await?;
    Ok(is_merged)
}

/// Drops what has been archived or merged for a while, and what retention no longer keeps.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement. A retry is safe.
pub async fn drop_old(client: &Client) -> Result<(), WriteError> {
    let row = client
        .query_one(include_str!("../../sql/ingest/drop_old.sql"), &[])
        .await
        .map_err(|error| WriteError::from(error).during("dropping old chunks"))?;
    if let Some(expired) = row.get::<_, Option<String>>("expired") {
        log::info!("retention has dropped {expired}");
    }
    Ok(())
}

async fn wait_for_batches(client: &Client, boundary: i64) -> Result<(), WriteError> {
    let is_open = include_str!("../../sql/ingest/is_posting_open.sql");
    while client
        .query_one(is_open, &[&boundary])
        .await?
        .get::<_, bool>("is_open")
    {
        tokio::time::sleep(OPEN_BATCH_PAUSE).await;
    }
    Ok(())
}

/// A period that a level does not contain yet.
struct LevelPeriod {
    start: i64,
    is_large: bool,
    is_detailed: bool,
}

async fn level_periods(
    client: &Client,
    level: &str,
    boundary: i64,
) -> Result<Vec<LevelPeriod>, WriteError> {
    let statement = include_str!("../../sql/ingest/level_periods.sql");
    let rows = client.query(statement, &[&level, &boundary]).await?;
    Ok(rows
        .iter()
        .map(|row| LevelPeriod {
            start: row.get("period"),
            is_large: row.get("is_large"),
            is_detailed: row.get("is_detailed"),
        })
        .collect())
}

async fn close_level(client: &Client, level: &str, boundary: i64) -> Result<(), WriteError> {
    client
        .execute(
            include_str!("../../sql/ingest/close_level.sql"),
            &[&level, &boundary],
        )
        .await?;
    Ok(())
}

/// Further arguments of a refresh.
async fn refresh_options(client: &Client) -> Result<&'static str, WriteError> {
    let statement = include_str!("../../sql/ingest/refreshes_in_batches.sql");
    let in_batches = client.query_one(statement, &[]).await?.get(0);
    Ok(if in_batches { SINGLE_PASS } else { "" })
}

/// Refreshes an aggregate over a range of postings. Waits while another session refreshes it.
async fn refresh(
    client: &Client,
    level: &str,
    start: i64,
    end: i64,
    options: &str,
) -> Result<(), WriteError> {
    client
        .query(include_str!("../../sql/ingest/set_grouping.sql"), &[&level])
        .await?;
    // Not every version accepts parameters for a procedure that commits.
    let statement = format!(
        "call refresh_continuous_aggregate('{level}', {start}::bigint, {end}::bigint{options})"
    );
    loop {
        match client.batch_execute(&statement).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                tokio::time::sleep(RETRY_AFTER).await;
            }
            other => {
                return other.map_err(|error| {
                    WriteError::from(error).during(&format!("refreshing {level}"))
                });
            }
        }
    }
}
