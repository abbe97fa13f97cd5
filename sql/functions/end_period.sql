-- Ends the current period. Batches that begin from now on belong to the next one. A period that has
-- no batch yet is not ended.
--
-- Columns:
--   end_period  bigint  where the next period begins, or the current one if it has no batch

create or replace function end_period() returns bigint
language sql
volatile
as $$
    select case
        when is_called or last_value & 1099511627775 > 0
        then setval('posting_numbers', ((last_value >> 40) + 1) << 40, false)
        else last_value
    end
    from posting_numbers
$$
