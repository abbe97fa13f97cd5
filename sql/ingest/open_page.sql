-- What organization_usage_recent does not contain yet.
--
-- Parameters: none
-- Columns, always one row:
--   closed_before  bigint  its first posting
--   records        bigint

with register as (
    select max(closed_before) as closed_before
    from usage_levels
    where level in ('organization_usage_recent', 'usage_records')
)
select
    register.closed_before,
    (
        select coalesce(sum(records), 0)::bigint
        from posting_days
        where posting >= register.closed_before and is_recent
    ) as records
from register
