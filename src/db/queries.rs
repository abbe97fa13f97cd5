//! The queries of the API, one round trip each. Their files in `sql/queries` document parameters
//! and columns.

use std::pin::Pin;

use chrono::{DateTime, Utc};
use deadpool_postgres::Client;
use futures_util::TryStreamExt as _;
use serde::Serialize;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream};

use super::StorageError;
use crate::domain::{
    Assignment, Buckets, Freshness, Interval, InvalidId, Order, OrganizationId, Pieces, Scope,
    SimCardId, Subject, UsageBucket, UsageTotal, Window,
};

type Parameters<'a> = [&'a (dyn ToSql + Sync)];

/// A window of rows about usage, with the totals of all rows.
#[derive(Debug)]
pub struct UsageRows<T> {
    /// The totals of all rows, including those outside the window.
    pub totals: Totals,
    /// The freshness of rows and totals.
    pub freshness: Freshness,
    /// The rows of the window.
    pub rows: Rows<T>,
}

/// The totals of a list or series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// The number of rows.
    pub rows: i64,
    /// The sum of their bytes; `None` if it does not fit into 64 bits.
    pub bytes: Option<i64>,
}

/// The starts of more buckets are calculated by the server. A connection keeps buffers as large as the
/// largest statement it has sent: 4 MB for 100,000 starts, and every connection would have them.
const MAX_SENT_STARTS: usize = 2_000;

/// Parameters of [`usage_series`].
#[derive(Debug, Clone, Copy)]
pub struct SeriesQuery<'a> {
    /// The organizations that the caller may see.
    pub scope: &'a Scope,
    /// The interval whose freshness is reported.
    pub interval: Interval,
    /// The buckets of the interval.
    pub buckets: &'a Buckets,
    /// The parts of the interval to read and to sum up in the totals.
    pub pieces: &'a Pieces,
    /// The buckets to return, as a half-open range of indexes.
    pub shown: (usize, usize),
    /// The window of rows, among the buckets in `shown` that have usage.
    pub window: Window,
}

/// The buckets with usage of a SIM card or an organization, in the order of time; `None` if it does
/// not exist or the caller may not see it.
///
/// # Errors
/// See [`StorageError`]; `TotalOverflow` if the sum of the bytes does not fit into 64 bits.
pub async fn usage_series(
    client: &Client,
    subject: &Subject,
    query: SeriesQuery<'_>,
) -> Result<Option<UsageRows<UsageBucket>>, StorageError> {
    let statement = include_str!("../../sql/queries/usage_series.sql");
    let (sim_card, organization) = names(subject);
    let SeriesQuery {
        scope,
        interval,
        buckets,
        pieces,
        shown,
        window,
    } = query;
    let number = |index: usize| i32::try_from(index).unwrap_or(i32::MAX);
    let pieces = match subject {
        Subject::SimCard(_) => &pieces.clone().without_slots(),
        Subject::Organization(_) => pieces,
    };
    let starts = buckets.len() <= MAX_SENT_STARTS;
    let starts = starts.then(|| buckets.starts().collect::<Vec<_>>());
    let (mut firsts, mut steps, mut counts) = (vec![], vec![], vec![]);
    if starts.is_none() {
        for (first, step, count) in buckets.runs() {
            firsts.push(first);
            steps.push(step);
            counts.push(count);
        }
    }
    let parameters: [&(dyn ToSql + Sync); 16] = [
        &sim_card,
        &organization,
        &scope.organizations(),
        &edges(&pieces.records),
        &edges(&pieces.slots),
        &edges(&pieces.days),
        &starts,
        &number(shown.0),
        &number(shown.1),
        &window.limit,
        &window.offset,
        &interval.start(),
        &interval.end(),
        &firsts,
        &steps,
        &counts,
    ];
    usage(Rows::query(client, statement, &parameters, bucket).await?)
}

/// The start of each piece, followed by its end.
fn edges(pieces: &[Interval]) -> Vec<DateTime<Utc>> {
    pieces
        .iter()
        .flat_map(|piece| [piece.start(), piece.end()])
        .collect()
}

/// Whether the SIM card or the organization exists and the caller may see it. Cheaper than
/// [`usage_series`], whose parameters may be large.
///
/// # Errors
/// See [`StorageError`].
pub async fn subject_exists(
    client: &Client,
    subject: &Subject,
    scope: &Scope,
) -> Result<bool, StorageError> {
    let statement = client
        .prepare_cached(include_str!("../../sql/queries/subject_exists.sql"))
        .await?;
    let (sim_card, organization) = names(subject);
    let parameters: [&(dyn ToSql + Sync); 3] = [&sim_card, &organization, &scope.organizations()];
    let row = client.query_one(&statement, &parameters).await?;
    Ok(row.try_get("is_visible")?)
}

/// The SIM card or the organization.
fn names(subject: &Subject) -> (Option<&str>, Option<&str>) {
    match subject {
        Subject::SimCard(sim_card) => (Some(sim_card.as_str()), None),
        Subject::Organization(organization) => (None, Some(organization.as_str())),
    }
}

/// Parameters of [`sim_card_totals`] and [`organization_totals`].
#[derive(Debug, Clone, Copy)]
pub struct TotalsQuery<'a> {
    /// The organizations that the caller may see.
    pub scope: &'a Scope,
    /// The interval to sum up.
    pub interval: Interval,
    /// The order of the rows.
    pub order: Order,
    /// Starts the window after the row with this sort key ([`Order::place`]) and identifier.
    pub after: Option<(i128, &'a str)>,
    /// The window of rows.
    pub window: Window,
}

/// The SIM cards with usage in the interval, of one organization or of all; `None` if the
/// organization does not exist or the caller may not see it. For a SIM card that changed its
/// organization, only the usage of this organization counts.
///
/// # Errors
/// See [`StorageError`].
pub async fn sim_card_totals(
    client: &Client,
    organization: Option<&OrganizationId>,
    query: TotalsQuery<'_>,
) -> Result<Option<UsageRows<UsageTotal>>, StorageError> {
    let statement = include_str!("../../sql/queries/simcard_totals.sql");
    let TotalsQuery {
        scope,
        interval,
        order,
        after,
        window,
    } = query;
    let pieces = Pieces::from(interval.parts()).without_slots();
    let parameters: [&(dyn ToSql + Sync); 11] = [
        &scope.organizations(),
        &organization.map(OrganizationId::as_str),
        &edges(&pieces.records),
        &edges(&pieces.days),
        &order.factor(),
        &after.map(|(place, _)| place.to_string()),
        &after.map(|(_, id)| id),
        &window.limit,
        &window.offset,
        &interval.start(),
        &interval.end(),
    ];
    usage(Rows::query(client, statement, &parameters, total).await?)
}

/// The organizations with usage in the interval.
///
/// # Errors
/// See [`StorageError`].
pub async fn organization_totals(
    client: &Client,
    query: TotalsQuery<'_>,
) -> Result<UsageRows<UsageTotal>, StorageError> {
    let statement = include_str!("../../sql/queries/organization_totals.sql");
    let TotalsQuery {
        scope,
        interval,
        order,
        after,
        window,
    } = query;
    let pieces = Pieces::from(interval.parts());
    let parameters: [&(dyn ToSql + Sync); 11] = [
        &scope.organizations(),
        &edges(&pieces.records),
        &edges(&pieces.slots),
        &edges(&pieces.days),
        &order.factor(),
        &after.map(|(place, _)| place.to_string()),
        &after.map(|(_, id)| id),
        &window.limit,
        &window.offset,
        &interval.start(),
        &interval.end(),
    ];
    usage(Rows::query(client, statement, &parameters, total).await?)?.ok_or_else(no_row)
}

/// Parameters of [`inventory`].
#[derive(Debug, Clone, Copy)]
pub struct InventoryQuery<'a> {
    /// The organizations that the caller may see.
    pub scope: &'a Scope,
    /// Only assignments to this organization.
    pub organization: Option<&'a OrganizationId>,
    /// Only assignments of this SIM card.
    pub sim_card: Option<&'a SimCardId>,
    /// Only SIM cards or organizations that start with this.
    pub prefix: Option<&'a str>,
    /// Starts the window after the assignment of this SIM card from this instant.
    pub after: Option<(&'a str, Option<DateTime<Utc>>)>,
    /// The version of the inventory whose total is known.
    pub version: Option<i64>,
    /// The window of rows.
    pub window: Window,
}

/// How many assignments of SIM cards that start with a prefix are counted. Counting more would take
/// longer than answering.
pub const MAX_COUNTED: i64 = 1_000;

/// A window of the inventory.
#[derive(Debug)]
pub struct Inventory {
    /// The number of all assignments; `None` if it is known (see [`InventoryQuery::version`]), or the
    /// query has a prefix with more than [`MAX_COUNTED`] assignments.
    pub total: Option<i64>,
    /// Differs whenever the inventory does.
    pub version: i64,
    /// The assignments of the window, ordered by SIM card and time.
    pub rows: Rows<Assignment>,
}

/// The assignments of SIM cards to organizations; `None` if the organization does not exist or the
/// caller may not see it.
///
/// # Errors
/// See [`StorageError`].
pub async fn inventory(
    client: &Client,
    query: InventoryQuery<'_>,
) -> Result<Option<Inventory>, StorageError> {
    let statement = include_str!("../../sql/queries/inventory.sql");
    let InventoryQuery {
        scope,
        organization,
        sim_card,
        prefix,
        after,
        version,
        window,
    } = query;
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &scope.organizations(),
        &organization.map(OrganizationId::as_str),
        &prefix,
        &after.map(|(sim_card, _)| sim_card),
        &after.and_then(|(_, valid_from)| valid_from),
        &window.limit,
        &window.offset,
        &MAX_COUNTED,
        &sim_card.map(SimCardId::as_str),
        &version,
    ];
    let Some((first, rows)) = Rows::query(client, statement, &parameters, assignment).await? else {
        return Ok(None);
    };
    Ok(Some(Inventory {
        total: first.try_get("total")?,
        version: first.try_get("inventory_version")?,
        rows,
    }))
}

/// How fresh the usage of the interval is. Does not read the usage itself.
///
/// # Errors
/// See [`StorageError`].
pub async fn freshness(client: &Client, interval: Interval) -> Result<Freshness, StorageError> {
    let statement = client
        .prepare_cached(include_str!("../../sql/queries/freshness.sql"))
        .await?;
    let row = client
        .query_one(&statement, &[&interval.start(), &interval.end()])
        .await?;
    freshness_of(&row)
}

/// Rows streamed from the server. Dropped before the end, they leave the query running in its
/// session.
pub struct Rows<T> {
    stream: Pin<Box<RowStream>>,
    /// The first row, which is read in advance for the totals.
    first: Option<T>,
    read: fn(&Row) -> Result<Option<T>, StorageError>,
}

impl<T> std::fmt::Debug for Rows<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rows").finish_non_exhaustive()
    }
}

impl<T> Rows<T> {
    /// Runs a statement, prepared once per session. Returns the first row, and all rows to stream;
    /// `None` if there are no rows.
    async fn query(
        client: &Client,
        statement: &str,
        parameters: &Parameters<'_>,
        read: fn(&Row) -> Result<Option<T>, StorageError>,
    ) -> Result<Option<(Row, Self)>, StorageError> {
        let statement = client.prepare_cached(statement).await?;
        let mut stream = Box::pin(
            client
                .query_raw(&statement, parameters.iter().copied())
                .await?,
        );
        let Some(first) = stream.try_next().await? else {
            return Ok(None);
        };
        let value = read(&first)?;
        Ok(Some((
            first,
            Self {
                stream,
                first: value,
                read,
            },
        )))
    }

    /// The next row; `None` after the last.
    ///
    /// # Errors
    /// Returns an error if the query failed midway or the connection broke.
    pub async fn next(&mut self) -> Result<Option<T>, StorageError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match self.stream.try_next().await? {
            Some(row) => (self.read)(&row),
            None => Ok(None),
        }
    }

    /// Reads all rows.
    ///
    /// # Errors
    /// See [`Self::next`].
    pub async fn collect(mut self) -> Result<Vec<T>, StorageError> {
        let mut all = vec![];
        while let Some(row) = self.next().await? {
            all.push(row);
        }
        Ok(all)
    }
}

/// Adds totals and freshness, which are in the first row.
fn usage<T>(rows: Option<(Row, Rows<T>)>) -> Result<Option<UsageRows<T>>, StorageError> {
    let Some((first, rows)) = rows else {
        return Ok(None);
    };
    let totals = Totals {
        rows: first.try_get("total")?,
        bytes: first.try_get("all_bytes")?,
    };
    Ok(Some(UsageRows {
        totals,
        freshness: freshness_of(&first)?,
        rows,
    }))
}

fn freshness_of(row: &Row) -> Result<Freshness, StorageError> {
    Ok(Freshness {
        version: row.try_get("version")?,
        inventory_version: row.try_get("inventory_version")?,
        complete_through: row.try_get("complete_through")?,
        last_ingested_at: row.try_get("last_ingested_at")?,
    })
}

/// The bucket of a row; `None` if the page is empty and the row has only its totals.
fn bucket(row: &Row) -> Result<Option<UsageBucket>, StorageError> {
    let Some(number) = row.try_get::<_, Option<i32>>("number")? else {
        return Ok(None);
    };
    let index = usize::try_from(number - 1)
        .map_err(|_| StorageError::Other(format!("invalid bucket number {number}").into()))?;
    Ok(Some(UsageBucket {
        index,
        bytes: row.try_get("bytes")?,
        records: row.try_get("records")?,
    }))
}

/// The total of a row; `None` if the page is empty and the row has only its totals.
fn total(row: &Row) -> Result<Option<UsageTotal>, StorageError> {
    let Some(id) = row.try_get("id")? else {
        return Ok(None);
    };
    let bytes = if let Some(bytes) = row.try_get::<_, Option<i64>>("bytes")? {
        i128::from(bytes)
    } else {
        let large: String = row.try_get("large_bytes")?;
        let invalid = |_| StorageError::Other(format!("invalid sum {large}").into());
        large.parse().map_err(invalid)?
    };
    Ok(Some(UsageTotal {
        id,
        bytes,
        records: row.try_get("records")?,
    }))
}

/// The assignment of a row; `None` if the page is empty and the row has only its total.
fn assignment(row: &Row) -> Result<Option<Assignment>, StorageError> {
    let Some(sim_card) = row.try_get("sim_card")? else {
        return Ok(None);
    };
    let invalid =
        |error: InvalidId| StorageError::Other(format!("in the inventory: {error}").into());
    Ok(Some(Assignment {
        sim_card: SimCardId::parse(sim_card).map_err(invalid)?,
        organization: OrganizationId::parse(row.try_get("organization")?).map_err(invalid)?,
        valid_from: row.try_get("valid_from")?,
        valid_until: row.try_get("valid_until")?,
    }))
}

fn no_row() -> StorageError {
    StorageError::Other("a query that always returns a row returned none".into())
}
