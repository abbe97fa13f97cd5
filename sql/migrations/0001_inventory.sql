-- The inventory: which SIM card belongs to which organization, and since when.
--
-- Text identifiers stay here; every other table holds the small integers, because four bytes
-- a key are what keeps a usage record narrow and its COPY fast.

create table organizations (
    id integer generated always as identity primary key,
    name text not null unique
);

create table sim_cards (
    id integer generated always as identity primary key,
    iccid text not null unique
);

-- One row says: from valid_from on, and until the next row of the same SIM card, the card belongs
-- to the organization. '-infinity' is "since ever".
create table sim_card_assignments (
    sim_card_id integer not null references sim_cards,
    valid_from timestamptz not null,
    organization_id integer not null references organizations,
    primary key (sim_card_id, valid_from)
);
