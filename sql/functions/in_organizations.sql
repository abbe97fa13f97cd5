-- An SQL condition that continues another one: the usage is of some organizations.
--
-- Parameters:
--   organizations  integer[]  null for all
-- Columns:
--   in_organizations  text  begins with `and`; empty for all

create or replace function in_organizations(organizations integer[]) returns text
language sql
immutable
as $$
    select case
        when organizations is null then ''
        -- A single one excludes batches of the columnstore.
        when cardinality(organizations) = 1 then format(' and organization_id = %s', organizations[1])
        else format(' and organization_id = any(%L::integer[])', organizations)
    end
$$
