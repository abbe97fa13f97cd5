-- One page of the organizations with usage in an interval, with the totals of all pages.
--
-- Parameters:
--   $1 integer[]      ids of the organizations that the caller may see; null for all
--   $2 timestamptz[]  edges of the ranges to read from the records: start, end, start, end
--   $3 timestamptz[]  of the ranges to read from quarter hours
--   $4 timestamptz[]  of the range to read from UTC days
--   $5 integer        order: 1 by bytes, -1 by bytes descending, 0 by id; ties are ordered by id
--   $6 text           only rows after this sort key ($5 * bytes), a number; null for all
--   $7 text           and after this id, among rows with that sort key
--   $8 bigint         maximum number of rows; null for all
--   $9 bigint         number of rows to skip
--   $10 timestamptz   start of the interval
--   $11 timestamptz   end of the interval
--
-- Columns:
--   total              bigint       number of organizations on all pages
--   all_bytes          bigint       bytes on all pages; null if they exceed bigint
--   version            bigint       this and the next three: see sql/functions/usage_freshness.sql
--   inventory_version  bigint
--   complete_through   timestamptz
--   last_ingested_at   timestamptz
--   id                 text         the organization's name; null if the page is empty
--   bytes              bigint       null if they exceed bigint
--   large_bytes        text         the bytes in this case
--   records            bigint
--
-- An empty page is one row with a null id.

with usage as (
    select organization_id, bytes, records from organization_list($1, $2, $3, $4)
),
totals as (
    select count(*) as total, coalesce(sum(bytes), 0) as all_bytes from usage
),
ordered as (
    select $5::integer * usage.bytes as place, organizations.name as id, usage.bytes, usage.records
    from usage
    join organizations on organizations.id = usage.organization_id
),
page as (
    select place, id, bytes, records
    from ordered
    where $6::text is null or (place, id) > ($6::text::numeric, $7::text)
    order by place, id
    limit $8 offset $9
)
select
    totals.total,
    case when totals.all_bytes <= 9223372036854775807 then totals.all_bytes::bigint end as all_bytes,
    freshness.*,
    page.id,
    case when page.bytes <= 9223372036854775807 then page.bytes::bigint end as bytes,
    case when page.bytes > 9223372036854775807 then page.bytes::text end as large_bytes,
    page.records
from totals
cross join usage_freshness($10, $11) as freshness
left join page on true
order by page.place, page.id
