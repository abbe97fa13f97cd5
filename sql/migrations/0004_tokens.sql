-- API tokens.

-- Only a token's hash is stored. Revoked tokens keep their rows: while any row exists, every
-- request needs a token, and a name in a log always refers to the same token.
create table tokens (
    id integer generated always as identity primary key,
    name text not null unique,
    -- SHA-256 of the token's text. The text has as many random bits as the hash, so a slow hash
    -- would not make it safer.
    hash bytea not null unique check (octet_length(hash) = 32),
    -- Explicit rather than implied by having no organizations, so that deleting those never widens
    -- access.
    sees_everything boolean not null,
    created_at timestamptz not null default now(),
    -- The first instant at which it is no longer valid; null: it does not expire.
    expires_at timestamptz,
    revoked_at timestamptz
);

-- The organizations that a token gives access to.
create table token_organizations (
    token_id integer not null references tokens,
    organization_id integer not null references organizations,
    primary key (token_id, organization_id)
);
