-- The migrations that have been applied, each with the SHA-256 of its file and the version of
-- simusage that applied it.
--
-- Parameters: none

create table if not exists simusage_migrations (
    number integer primary key,
    name text not null,
    checksum text not null,
    version text not null,
    applied_at timestamptz not null default now()
)
