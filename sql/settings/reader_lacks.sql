-- The privileges that the role simusage_reader lacks, with the statements that grant them. No row if
-- the role does not exist.
--
-- Parameters:
--   $1 text[]  tables and views that it needs to read
-- Columns:
--   subject  text  schema or relation
--   command  text  grant …

with reader as (
    select oid from pg_roles where rolname = 'simusage_reader'
)
select
    'schema ' || current_schema() as subject,
    format('grant usage on schema %I to simusage_reader', current_schema()) as command
from reader
where not has_schema_privilege(reader.oid, current_schema(), 'usage')
union all
select wanted.relation, format('grant select on %I to simusage_reader', wanted.relation)
from reader
cross join unnest($1::text[]) as wanted (relation)
where not has_table_privilege(reader.oid, to_regclass(wanted.relation), 'select')
