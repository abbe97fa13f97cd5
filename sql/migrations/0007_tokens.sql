-- Who may ask the API, and the role that its answers can be read with.

-- A token is known by its hash alone. Rows stay when a token is revoked: as long as there is one, every request
-- needs a token, and a name keeps meaning what it meant in a log.
create table tokens (
    id integer generated always as identity primary key,
    name text not null unique,
    -- SHA-256 of the token's text, which is as random as the hash is long, so that a slow hash would add nothing.
    hash bytea not null unique check (octet_length(hash) = 32),
    -- Said rather than told from a lack of organizations, so that losing them can never widen what it sees.
    sees_everything boolean not null,
    created_at timestamptz not null default now(),
    -- The first instant at which it is no longer valid.
    expires_at timestamptz,
    revoked_at timestamptz
);

-- The organizations that a token is bound to.
create table token_organizations (
    token_id integer not null references tokens,
    organization_id integer not null references organizations,
    primary key (token_id, organization_id)
);

-- The role belongs to the whole server, so another database's migration may have made it, or may be making it now.
-- `simusage migrate` gives it its rights each time it runs, for they belong to this database, and whoever
-- migrates may have to ask somebody else for the role.
do $$
begin
    if not exists (select from pg_roles where rolname = 'simusage_reader') then
        create role simusage_reader nologin;
    end if;
exception
    when duplicate_object or unique_violation then
        null;
    when insufficient_privilege then
        raise warning 'the role simusage_reader does not exist, and % may not create it', current_user;
end
$$;
