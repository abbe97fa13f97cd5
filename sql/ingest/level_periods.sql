-- The periods before a boundary that a level does not contain yet.
--
-- Parameters:
--   $1 text    a level of usage_levels
--   $2 bigint  the first posting of a period
-- Columns; periods without records have no row:
--   period       bigint   its first posting
--   is_large     boolean  whether it may have records of 2^38 bytes or more
--   is_detailed  boolean  whether it may have records with attributes, or with bytes up and down

select
    posting >> 40 << 40 as period,
    bool_or(is_large) as is_large,
    bool_or(is_detailed) as is_detailed
from posting_days
where posting >= (select closed_before from usage_levels where level = $1) and posting < $2
group by 1
order by 1
