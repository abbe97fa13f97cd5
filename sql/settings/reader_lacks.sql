-- The rights that the role simusage_reader lacks, and the statements that give them. No row where there is no
-- such role: there is nobody to give them to.
--
-- Parameters:
--   $1 text[]  tables and views that it is to read
--
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
