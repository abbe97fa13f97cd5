-- The privileges that the reader of this database lacks, and those that the readers of other databases
-- have, for example because a dump was restored under another name. Without the role, only the latter.
--
-- Parameters:
--   $1 text    name of the reader
--   $2 text[]  tables and views that it needs to read
--   $3 text[]  functions that it needs to execute
-- Columns:
--   reader   text  name of the role
--   lacks    bool  whether it lacks the privilege, instead of having it in excess
--   subject  text  schema, relation or function
--   command  text  grant … or revoke …

with reader as (
    select oid, rolname from pg_roles where rolname = $1::text
),
relations as (
    select relation, to_regclass(format('%I', relation)) as oid
    from unnest($2::text[]) as wanted (relation)
)
select
    reader.rolname::text as reader,
    true as lacks,
    'schema ' || current_schema() as subject,
    format('grant usage on schema %I to %I', current_schema(), reader.rolname) as command
from reader
where not has_schema_privilege(reader.oid, current_schema(), 'usage')
union all
select
    reader.rolname,
    true,
    relations.relation,
    format('grant select on %I to %I', relations.relation, reader.rolname)
from reader
cross join relations
where not has_table_privilege(reader.oid, relations.oid, 'select')
union all
select
    reader.rolname,
    true,
    'function ' || pg_proc.proname,
    format('grant execute on routine %s to %I', pg_proc.oid::regprocedure, reader.rolname)
from reader
cross join pg_proc
where
    pg_proc.pronamespace = current_schema()::regnamespace
    and pg_proc.proname = any($3::text[])
    and not has_function_privilege(reader.oid, pg_proc.oid, 'execute')
union all
select
    others.rolname,
    false,
    relations.relation,
    format('revoke all on %I from %I', relations.relation, others.rolname)
from relations
join pg_class on pg_class.oid = relations.oid
cross join aclexplode(pg_class.relacl) as granted
join pg_roles as others on others.oid = granted.grantee
where others.rolname ~ '^simusage_reader(_|$)' and others.rolname <> $1
group by others.rolname, relations.relation
