-- How often the inventory has been loaded, so that an ingest that runs on and on can tell whether its copy in memory
-- is still what the database has. One row.

create table inventory_version (
    version bigint not null
);

insert into inventory_version values (0);
