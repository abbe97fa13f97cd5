//! The questions that the API asks, one round trip each. The statements stand in `sql/queries`, with the meaning of
//! their parameters and columns.

use deadpool_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::StorageError;
use crate::domain::{
    Assignment, Granularity, Interval, InvalidId, Inventory, OrganizationId, Page, Parts, SimCardId, UsageBucket,
    UsageSeries, UsageTotal, UsageTotals,
};

/// The buckets of a SIM card that have usage, and `None` where nobody knows the card.
///
/// # Errors
/// See [`StorageError`]; `TotalOverflow` where the interval has more bytes than 64 bits can say.
pub async fn sim_card_usage(
    client: &Client,
    sim_card: &SimCardId,
    interval: Interval,
    granularity: Granularity,
    page: Page,
) -> Result<Option<UsageSeries>, StorageError> {
    let statement = match granularity {
        Granularity::Hour => include_str!("../../sql/queries/simcard_usage_hourly.sql"),
        Granularity::Day => include_str!("../../sql/queries/simcard_usage_daily.sql"),
    };
    series(client, statement, sim_card.as_str(), interval, granularity, page).await
}

/// The buckets of an organization that have usage, and `None` where nobody knows the organization.
///
/// # Errors
/// See [`StorageError`]; `TotalOverflow` where the interval has more bytes than 64 bits can say.
pub async fn organization_usage(
    client: &Client,
    organization: &OrganizationId,
    interval: Interval,
    granularity: Granularity,
    page: Page,
) -> Result<Option<UsageSeries>, StorageError> {
    let statement = match granularity {
        Granularity::Hour => include_str!("../../sql/queries/organization_usage_hourly.sql"),
        Granularity::Day => include_str!("../../sql/queries/organization_usage_daily.sql"),
    };
    series(client, statement, organization.as_str(), interval, granularity, page).await
}

/// The SIM cards with usage in the interval, of one organization or of all; `None` where nobody knows the
/// organization. A SIM card that changed its organization counts with what it used on behalf of this one.
///
/// # Errors
/// See [`StorageError`]; `TotalOverflow` where the list has more bytes than 64 bits can say.
pub async fn sim_card_totals(
    client: &Client,
    organization: Option<&OrganizationId>,
    interval: Interval,
    page: Page,
) -> Result<Option<UsageTotals>, StorageError> {
    let statement = include_str!("../../sql/queries/simcard_totals.sql");
    let Parts { start, hours, days, days_end, hours_end, end } = interval.parts();
    let organization = organization.map(OrganizationId::as_str);
    let rows = query(
        client,
        statement,
        &[&organization, &start, &hours, &days, &days_end, &hours_end, &end, &page.size(), &page.offset()],
    )
    .await?;
    totals(&rows)
}

/// The organizations with usage in the interval.
///
/// # Errors
/// See [`StorageError`]; `TotalOverflow` where the list has more bytes than 64 bits can say.
pub async fn organization_totals(client: &Client, interval: Interval, page: Page) -> Result<UsageTotals, StorageError> {
    let statement = include_str!("../../sql/queries/organization_totals.sql");
    let Parts { start, hours, days, days_end, hours_end, end } = interval.parts();
    let rows =
        query(client, statement, &[&start, &hours, &days, &days_end, &hours_end, &end, &page.size(), &page.offset()])
            .await?;
    totals(&rows)?.ok_or_else(no_row)
}

/// The assignments of SIM cards to organizations.
///
/// # Errors
/// See [`StorageError`].
pub async fn inventory(client: &Client, page: Page) -> Result<Inventory, StorageError> {
    let statement = include_str!("../../sql/queries/inventory.sql");
    let rows = query(client, statement, &[&page.size(), &page.offset()]).await?;
    let total = rows.first().ok_or_else(no_row)?.try_get("total")?;
    let items = rows.iter().filter_map(|row| assignment(row).transpose()).collect::<Result<_, _>>()?;
    Ok(Inventory { items, total })
}

/// Runs a statement that is prepared once per session.
async fn query(client: &Client, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StorageError> {
    let statement = client.prepare_cached(statement).await?;
    Ok(client.query(&statement, parameters).await?)
}

/// The series that one of the four statements of a SIM card or an organization answers.
async fn series(
    client: &Client,
    statement: &str,
    id: &str,
    interval: Interval,
    granularity: Granularity,
    page: Page,
) -> Result<Option<UsageSeries>, StorageError> {
    let Parts { start, hours, days, days_end, hours_end, end } = interval.parts();
    let (size, offset) = (page.size(), page.offset());
    let rows = match granularity {
        Granularity::Hour => query(client, statement, &[&id, &start, &hours, &hours_end, &end, &size, &offset]).await?,
        Granularity::Day => {
            query(client, statement, &[&id, &start, &hours, &days, &days_end, &hours_end, &end, &size, &offset]).await?
        }
    };
    let Some(first) = rows.first() else { return Ok(None) };
    Ok(Some(UsageSeries {
        total: first.try_get("total")?,
        bytes: first.try_get("all_bytes")?,
        buckets: rows.iter().filter_map(|row| bucket(row).transpose()).collect::<Result<_, _>>()?,
    }))
}

/// The totals that one of the two statements of lists answers; `None` where it has no row.
fn totals(rows: &[Row]) -> Result<Option<UsageTotals>, StorageError> {
    let Some(first) = rows.first() else { return Ok(None) };
    Ok(Some(UsageTotals {
        total: first.try_get("total")?,
        bytes: first.try_get("all_bytes")?,
        items: rows.iter().filter_map(|row| total(row).transpose()).collect::<Result<_, _>>()?,
    }))
}

/// The bucket of a row; `None` where the row only carries the totals of an empty page.
fn bucket(row: &Row) -> Result<Option<UsageBucket>, StorageError> {
    let Some(start) = row.try_get("bucket")? else { return Ok(None) };
    Ok(Some(UsageBucket { start, bytes: row.try_get("bytes")?, records: row.try_get("records")? }))
}

/// The total of a row; `None` where the row only carries the totals of an empty page.
fn total(row: &Row) -> Result<Option<UsageTotal>, StorageError> {
    let Some(id) = row.try_get("id")? else { return Ok(None) };
    Ok(Some(UsageTotal { id, bytes: row.try_get("bytes")?, records: row.try_get("records")? }))
}

/// The assignment of a row; `None` where the row only carries the total of an empty page.
fn assignment(row: &Row) -> Result<Option<Assignment>, StorageError> {
    let Some(sim_card) = row.try_get("sim_card")? else { return Ok(None) };
    let foreign = |error: InvalidId| StorageError::Other(format!("in the inventory: {error}"));
    Ok(Some(Assignment {
        sim_card: SimCardId::parse(sim_card).map_err(foreign)?,
        organization: OrganizationId::parse(row.try_get("organization")?).map_err(foreign)?,
        valid_from: row.try_get("valid_from")?,
    }))
}

/// A statement that always has a row had none.
fn no_row() -> StorageError {
    StorageError::Other("a statement answered no row".to_owned())
}
