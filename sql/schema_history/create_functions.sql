-- The SQL functions that have been applied, each with the SHA-256 of its file and the version of
-- simusage that applied it.
--
-- Parameters: none

create table if not exists simusage_functions (
    name text primary key,
    checksum text not null,
    version text not null,
    applied_at timestamptz not null default now()
)
