-- Assignments can end: a row without organization says that the SIM card has no owner from then on.

alter table sim_card_assignments alter column organization_id drop not null;

-- The number of rows without organization, which are not counted as assignments.
alter table inventory_version add column ends bigint not null default 0;

-- Like before, and counts ends.
create or replace function follow_assignments() returns trigger language plpgsql as $$
declare
    more bigint := 0;
    more_ends bigint := 0;
    fewer bigint := 0;
    fewer_ends bigint := 0;
begin
    if tg_op = 'TRUNCATE' then
        update inventory_version set version = version + 1, assignments = 0, ends = 0;
        update organizations set assignments = 0 where assignments <> 0;
        return null;
    end if;
    if tg_op <> 'DELETE' then
        select count(organization_id), count(*) - count(organization_id) into more, more_ends from added;
    end if;
    if tg_op <> 'INSERT' then
        select count(organization_id), count(*) - count(organization_id) into fewer, fewer_ends from removed;
    end if;
    if more + more_ends + fewer + fewer_ends = 0 then
        return null;
    end if;
    update inventory_version
    set
        version = version + 1,
        assignments = assignments + more - fewer,
        ends = ends + more_ends - fewer_ends;
    if tg_op <> 'DELETE' then
        update organizations
        set assignments = organizations.assignments + counted.assignments
        from (
            select organization_id, count(*) as assignments from added group by organization_id
        ) as counted
        where organizations.id = counted.organization_id;
    end if;
    if tg_op <> 'INSERT' then
        update organizations
        set assignments = organizations.assignments - counted.assignments
        from (
            select organization_id, count(*) as assignments from removed group by organization_id
        ) as counted
        where organizations.id = counted.organization_id;
    end if;
    return null;
end
$$;
