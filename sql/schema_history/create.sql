-- Which migrations have been applied, by which program, and the SHA-256 of each file at that time.

create table if not exists simusage_migrations (
    number integer primary key,
    name text not null,
    checksum text not null,
    version text not null,
    applied_at timestamptz not null default now()
)
