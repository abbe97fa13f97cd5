-- The inventory: which organization each SIM card is assigned to, and since when.
--
-- Only these tables contain the text identifiers. All others refer to SIM cards and organizations
-- by 4-byte integers, which keep usage records narrow and COPY fast.

create table organizations (
    id integer generated always as identity primary key,
    name text not null unique
);

create table sim_cards (
    id integer generated always as identity primary key,
    iccid text not null unique
);

-- An assignment lasts from valid_from until the next row of the same SIM card. '-infinity' means
-- that it has no start.
create table sim_card_assignments (
    sim_card_id integer not null references sim_cards,
    valid_from timestamptz not null,
    organization_id integer not null references organizations,
    primary key (sim_card_id, valid_from)
);

-- How often the inventory has been loaded, in one row. A long-running ingest compares it with the
-- version of its copy in memory.
create table inventory_version (
    version bigint not null
);

insert into inventory_version values (0);
