-- Records whether a span was merged, after its refresh, and from then on readers take it from there.
--
-- Parameters:
--   $1 bigint   its first posting
--   $2 boolean  whether sim_card_usage_merged contains it

with decided as (
    insert into sim_card_spans (span, is_merged) values ($1, $2) on conflict do nothing
)
update usage_levels set closed_before = greatest(closed_before, $1 + 35184372088832)
where level = 'sim_card_usage_merged'
