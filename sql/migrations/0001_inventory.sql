-- The inventory: which organization each SIM card is assigned to, and since when.
--
-- Only these tables contain the text identifiers. All others refer to SIM cards and organizations
-- by 4-byte integers, which keep usage records narrow and COPY fast.
--
-- Identifiers are compared by their bytes (collation "C"): lists have the same order on every
-- server, and an index on an identifier also finds prefixes.

create table organizations (
    id integer generated always as identity primary key,
    name text collate "C" not null unique,
    -- The number of its assignments.
    assignments bigint not null default 0
);

create table sim_cards (
    id integer generated always as identity primary key,
    iccid text collate "C" not null unique
);

-- An assignment lasts from valid_from until the next row of the same SIM card. '-infinity' means
-- that it has no start. A row without organization says that the SIM card has no owner from then on.
--
-- There are no foreign keys, because checking them row by row would take most of a load. Loads take
-- the ids from the other two tables, from which nothing is ever deleted.
create table sim_card_assignments (
    sim_card_id integer not null,
    valid_from timestamptz not null,
    organization_id integer,
    -- The SIM card's, for the list of an organization in its order.
    iccid text collate "C" not null,
    primary key (sim_card_id, valid_from)
);

create unique index on sim_card_assignments (organization_id, iccid, valid_from);

-- A random version, between 0 and 2^62. A counter would repeat after a backup was restored, or after
-- a failover that lost the newest commits.
create function random_version() returns bigint language sql volatile as
$$select hashtextextended(gen_random_uuid()::text, 0) & 4611686018427387903$$;

-- One row about the whole inventory.
create table inventory_version (
    -- Differs after each change. A long-running ingest compares this with the version of its copy in
    -- memory, and entity tags contain it.
    version bigint not null,
    -- The number of assignments.
    assignments bigint not null,
    -- The number of rows without organization, which are not counted as assignments.
    ends bigint not null
);

insert into inventory_version values (0, 0, 0);

-- Counts assignments and ends, and replaces the version, in the transaction of each change. Statements that
-- change nothing leave the version as it is.
create function follow_assignments() returns trigger language plpgsql as $$
declare
    more bigint := 0;
    more_ends bigint := 0;
    fewer bigint := 0;
    fewer_ends bigint := 0;
begin
    if tg_op = 'TRUNCATE' then
        update inventory_version set version = random_version(), assignments = 0, ends = 0;
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
        version = random_version(),
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

create trigger follow_inserts after insert on sim_card_assignments
referencing new table as added
for each statement execute function follow_assignments();

create trigger follow_updates after update on sim_card_assignments
referencing old table as removed new table as added
for each statement execute function follow_assignments();

create trigger follow_deletes after delete on sim_card_assignments
referencing old table as removed
for each statement execute function follow_assignments();

create trigger follow_truncates after truncate on sim_card_assignments
for each statement execute function follow_assignments();
