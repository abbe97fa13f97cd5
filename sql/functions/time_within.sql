-- An SQL condition: a column is in one of several time ranges.
--
-- Parameters:
--   name   text           the column
--   edges  timestamptz[]  ascending: the start of the first range, its end, the start of the second…
-- Columns:
--   time_within  text
--
-- The outer bounds come first, because they exclude batches of the columnstore.

create or replace function time_within(name text, edges timestamptz[]) returns text
language sql
immutable
as $$
    select format('%1$s >= %2$L and %1$s < %3$L', name, edges[1], edges[cardinality(edges)])
        || case
            when cardinality(edges) > 2 then format(' and width_bucket(%s, %L::timestamptz[]) %% 2 = 1', name, edges)
            else ''
        end
$$
