-- One page of the SIM cards with usage in an interval, with the totals of all pages.
--
-- Parameters:
--   $1  integer[]      ids of the organizations that the caller may see; null for all
--   $2  text           only usage of this organization; null for all
--   $3  timestamptz[]  edges of the ranges to read from the records: start, end, start, end
--   $4  timestamptz[]  of the range to read from UTC days
--   $5  integer        order: 1 by bytes, -1 by bytes descending, 0 by id; ties are ordered by id
--   $6  text           only rows after this sort key ($5 * bytes), a number; null for all
--   $7  text           and after this id, among rows with that sort key
--   $8  bigint         maximum number of rows; null for all
--   $9  bigint         number of rows to skip
--   $10 timestamptz    start of the interval
--   $11 timestamptz    end of the interval
--
-- Columns:
--   total              bigint       number of SIM cards on all pages
--   all_bytes          bigint       bytes on all pages; null if they exceed bigint
--   version            bigint       this and the next three: see sql/functions/usage_freshness.sql
--   inventory_version  bigint
--   complete_through   timestamptz
--   last_ingested_at   timestamptz
--   id                 text         the SIM card's ICCID; null if the page is empty
--   bytes              bigint       null if they exceed bigint
--   large_bytes        text         the bytes in this case
--   records            bigint
--
-- No row: the organization does not exist, or the caller may not see it. An empty page is one row
-- with a null id.

with organization as (
    select array[id] as ids from organizations where name = $2 and ($1::integer[] is null or id = any($1))
    union all
    select $1 where $2 is null
)
select
    list.total,
    case when list.all_bytes <= 9223372036854775807 then list.all_bytes::bigint end as all_bytes,
    freshness.*,
    list.iccid as id,
    case when list.bytes <= 9223372036854775807 then list.bytes::bigint end as bytes,
    case when list.bytes > 9223372036854775807 then list.bytes::text end as large_bytes,
    list.records
from organization
cross join lateral sim_card_list(organization.ids, $3, $4, $5, $6::text::numeric, $7, $8, $9) as list
cross join usage_freshness($10, $11) as freshness
order by list.place, list.iccid
