-- Ends the current page. Batches that begin from now on belong to the next one.
--
-- Columns:
--   end_page  bigint  where the next page begins

create or replace function end_page() returns bigint
language sql
volatile
as $$
    select setval('posting_numbers', ((last_value >> 20) + 1) << 20, false) from posting_numbers
$$
