//! The questions that the API asks, one round trip each. The statements stand in `sql/queries`, with the meaning of
//! their parameters and columns.

use std::pin::Pin;

use chrono::{DateTime, Utc};
use deadpool_postgres::Client;
use futures_util::TryStreamExt as _;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream};

use super::StorageError;
use crate::domain::{
    Assignment, Freshness, Interval, InvalidId, Order, OrganizationId, Parts, Pieces, Scope,
    SimCardId, Subject, UsageBucket, UsageTotal, Window,
};

/// The parameters of a statement.
type Parameters<'a> = [&'a (dyn ToSql + Sync)];

/// Rows, with what is true of all of them.
#[derive(Debug)]
pub struct Answer<T> {
    /// How many rows the whole list has, and how many bytes.
    pub totals: Totals,
    /// How fresh all this is.
    pub freshness: Freshness,
    /// The rows of the window.
    pub rows: Rows<T>,
}

/// What a whole list sums up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Rows.
    pub rows: i64,
    /// Bytes.
    pub bytes: i64,
}

/// A question for a time series.
#[derive(Debug, Clone, Copy)]
pub struct SeriesQuery<'a> {
    /// What may be seen.
    pub scope: &'a Scope,
    /// The interval whose freshness is told.
    pub interval: Interval,
    /// Where each bucket of the interval begins.
    pub starts: &'a [DateTime<Utc>],
    /// What is read. The totals leave out what is not.
    pub pieces: &'a Pieces,
    /// The buckets of which rows are answered, by their places.
    pub shown: (usize, usize),
    /// Which of those that have usage.
    pub window: Window,
}

/// The buckets of a SIM card or an organization that have usage, by time; `None` where nobody knows it.
///
/// # Errors
/// See [`StorageError`]; `TotalOverflow` where the interval has more bytes than 64 bits can say.
pub async fn usage_series(
    client: &Client,
    subject: &Subject,
    question: SeriesQuery<'_>,
) -> Result<Option<Answer<UsageBucket>>, StorageError> {
    let statement = include_str!("../../sql/queries/usage_series.sql");
    let (sim_card, organization) = match subject {
        Subject::SimCard(sim_card) => (Some(sim_card.as_str()), None),
        Subject::Organization(organization) => (None, Some(organization.as_str())),
    };
    let SeriesQuery {
        scope,
        interval,
        starts,
        pieces,
        shown,
        window,
    } = question;
    let number = |index: usize| i32::try_from(index).unwrap_or(i32::MAX);
    let edges = |pieces: &[Interval]| -> (Vec<_>, Vec<_>) {
        pieces
            .iter()
            .map(|piece| (piece.start(), piece.end()))
            .unzip()
    };
    let Pieces {
        records,
        hours,
        days,
    } = pieces;
    let (records, hours, days) = (edges(records), edges(hours), edges(days));
    let parameters: [&(dyn ToSql + Sync); 16] = [
        &sim_card,
        &organization,
        &scope.organizations(),
        &records.0,
        &records.1,
        &hours.0,
        &hours.1,
        &days.0,
        &days.1,
        &starts,
        &number(shown.0),
        &number(shown.1),
        &window.limit,
        &window.offset,
        &interval.start(),
        &interval.end(),
    ];
    usage(Rows::query(client, statement, &parameters, bucket).await?)
}

/// A question for a list of totals.
#[derive(Debug, Clone, Copy)]
pub struct TotalsQuery<'a> {
    /// What may be seen.
    pub scope: &'a Scope,
    /// The interval of the totals.
    pub interval: Interval,
    /// The order of the rows.
    pub order: Order,
    /// The row behind which the window begins, by its place in the order ([`Order::place`]) and its identifier.
    pub after: Option<(i64, &'a str)>,
    /// Which rows.
    pub window: Window,
}

/// The SIM cards with usage in the interval, of one organization or of all; `None` where nobody knows the
/// organization. A SIM card that changed its organization counts with what it used on behalf of this one.
///
/// # Errors
/// See [`StorageError`]; `TotalOverflow` where the list has more bytes than 64 bits can say.
pub async fn sim_card_totals(
    client: &Client,
    organization: Option<&OrganizationId>,
    question: TotalsQuery<'_>,
) -> Result<Option<Answer<UsageTotal>>, StorageError> {
    let statement = include_str!("../../sql/queries/simcard_totals.sql");
    let Parts {
        start,
        hours,
        days,
        days_end,
        hours_end,
        end,
    } = question.interval.parts();
    let TotalsQuery {
        scope,
        order,
        after,
        window,
        ..
    } = question;
    let parameters: [&(dyn ToSql + Sync); 13] = [
        &scope.organizations(),
        &organization.map(OrganizationId::as_str),
        &start,
        &hours,
        &days,
        &days_end,
        &hours_end,
        &end,
        &order.factor(),
        &after.map(|(place, _)| place),
        &after.map(|(_, id)| id),
        &window.limit,
        &window.offset,
    ];
    usage(Rows::query(client, statement, &parameters, total).await?)
}

/// The organizations with usage in the interval.
///
/// # Errors
/// See [`StorageError`]; `TotalOverflow` where the list has more bytes than 64 bits can say.
pub async fn organization_totals(
    client: &Client,
    question: TotalsQuery<'_>,
) -> Result<Answer<UsageTotal>, StorageError> {
    let statement = include_str!("../../sql/queries/organization_totals.sql");
    let Parts {
        start,
        hours,
        days,
        days_end,
        hours_end,
        end,
    } = question.interval.parts();
    let TotalsQuery {
        scope,
        order,
        after,
        window,
        ..
    } = question;
    let parameters: [&(dyn ToSql + Sync); 12] = [
        &scope.organizations(),
        &start,
        &hours,
        &days,
        &days_end,
        &hours_end,
        &end,
        &order.factor(),
        &after.map(|(place, _)| place),
        &after.map(|(_, id)| id),
        &window.limit,
        &window.offset,
    ];
    usage(Rows::query(client, statement, &parameters, total).await?)?.ok_or_else(no_row)
}

/// A question for the inventory.
#[derive(Debug, Clone, Copy)]
pub struct InventoryQuery<'a> {
    /// What may be seen.
    pub scope: &'a Scope,
    /// Only what was assigned to this organization.
    pub organization: Option<&'a OrganizationId>,
    /// Only where the SIM card or the organization begins so.
    pub prefix: Option<&'a str>,
    /// The assignment behind which the window begins.
    pub after: Option<(&'a str, Option<DateTime<Utc>>)>,
    /// Which assignments.
    pub window: Window,
}

/// Assignments of SIM cards to organizations.
#[derive(Debug)]
pub struct Inventory {
    /// How many the whole list has; `None` where the question began behind an assignment.
    pub total: Option<i64>,
    /// Grows whenever the inventory was loaded.
    pub version: i64,
    /// The assignments of the window, by SIM card, then by time.
    pub rows: Rows<Assignment>,
}

/// The assignments of SIM cards to organizations; `None` where nobody knows the organization.
///
/// # Errors
/// See [`StorageError`].
pub async fn inventory(
    client: &Client,
    question: InventoryQuery<'_>,
) -> Result<Option<Inventory>, StorageError> {
    let statement = include_str!("../../sql/queries/inventory.sql");
    let InventoryQuery {
        scope,
        organization,
        prefix,
        after,
        window,
    } = question;
    let parameters: [&(dyn ToSql + Sync); 7] = [
        &scope.organizations(),
        &organization.map(OrganizationId::as_str),
        &prefix,
        &after.map(|(sim_card, _)| sim_card),
        &after.and_then(|(_, valid_from)| valid_from),
        &window.limit,
        &window.offset,
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

/// How fresh an answer over the interval would be. Touches none of its usage.
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

/// Rows as they come from the server. Whoever drops them before their end leaves the session at work.
pub struct Rows<T> {
    stream: Pin<Box<RowStream>>,
    /// The first row, which also carries what is true of all.
    first: Option<T>,
    read: fn(&Row) -> Result<Option<T>, StorageError>,
}

impl<T> std::fmt::Debug for Rows<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rows").finish_non_exhaustive()
    }
}

impl<T> Rows<T> {
    /// Runs a statement that is prepared once per session. `None`: it has no row.
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
    /// The statement failed half-way, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<T>, StorageError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match self.stream.try_next().await? {
            Some(row) => (self.read)(&row),
            None => Ok(None),
        }
    }

    /// All rows.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn collect(mut self) -> Result<Vec<T>, StorageError> {
        let mut all = vec![];
        while let Some(row) = self.next().await? {
            all.push(row);
        }
        Ok(all)
    }
}

/// What a statement of usage answers; `None` where it has no row.
fn usage<T>(answered: Option<(Row, Rows<T>)>) -> Result<Option<Answer<T>>, StorageError> {
    let Some((first, rows)) = answered else {
        return Ok(None);
    };
    let totals = Totals {
        rows: first.try_get("total")?,
        bytes: first.try_get("all_bytes")?,
    };
    Ok(Some(Answer {
        totals,
        freshness: freshness_of(&first)?,
        rows,
    }))
}

fn freshness_of(row: &Row) -> Result<Freshness, StorageError> {
    Ok(Freshness {
        version: row.try_get("version")?,
        inventory_version: row.try_get("inventory_version")?,
        is_settled: row
            .try_get::<_, Option<DateTime<Utc>>>("stale_from")?
            .is_none(),
        complete_through: row.try_get("complete_through")?,
        last_ingested_at: row.try_get("last_ingested_at")?,
    })
}

/// The bucket of a row; `None` where the row only carries the totals of an empty page.
fn bucket(row: &Row) -> Result<Option<UsageBucket>, StorageError> {
    let Some(number) = row.try_get::<_, Option<i32>>("number")? else {
        return Ok(None);
    };
    let index = usize::try_from(number - 1)
        .map_err(|_| StorageError::Other(format!("there is no bucket {number}")))?;
    Ok(Some(UsageBucket {
        index,
        bytes: row.try_get("bytes")?,
        records: row.try_get("records")?,
    }))
}

/// The total of a row; `None` where the row only carries the totals of an empty page.
fn total(row: &Row) -> Result<Option<UsageTotal>, StorageError> {
    let Some(id) = row.try_get("id")? else {
        return Ok(None);
    };
    Ok(Some(UsageTotal {
        id,
        bytes: row.try_get("bytes")?,
        records: row.try_get("records")?,
    }))
}

/// The assignment of a row; `None` where the row only carries the total of an empty page.
fn assignment(row: &Row) -> Result<Option<Assignment>, StorageError> {
    let Some(sim_card) = row.try_get("sim_card")? else {
        return Ok(None);
    };
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
