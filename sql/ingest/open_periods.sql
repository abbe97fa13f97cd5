-- What the aggregates of usage_records do not contain yet.
--
-- Parameters: none
-- Columns, always one row:
--   records        bigint            number of records
--   bulk           bigint            number of those that are in usage_records already
--   seconds        double precision  since a period was closed, or since the first posting; null if
--                                    no period has been closed

with register as (
    select min(closed_before) as closed_before
    from usage_levels
    where level in ('organization_usage', 'organization_usage_daily', 'sim_card_usage')
)
select
    coalesce(sum(records), 0)::bigint as records,
    coalesce(sum(records) filter (where not is_recent), 0)::bigint as bulk,
    (
        select extract(epoch from clock_timestamp() - max(closed_at))
        from posting_closings
        where posting_closings.closed_before & 1099511627775 = 0
    )::double precision as seconds
from register
left join posting_days on posting >= register.closed_before
