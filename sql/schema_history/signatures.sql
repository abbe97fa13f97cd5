-- The functions of a name in the current schema.
--
-- Parameters:
--   $1 text  name
-- Columns:
--   signature  text  name and types of the parameters, as `drop function` takes them

select oid::regprocedure::text as signature
from pg_proc
where pronamespace = current_schema()::regnamespace and proname = $1::text
