-- The key that authenticates page cursors. In the database, so that all serve processes accept each
-- other's cursors, also after a restart. Delete the row and insert another to replace the key.

create table cursor_key (
    key bytea not null check (octet_length(key) = 32)
);

-- Two random UUIDs contain 244 random bits, from the server's cryptographic generator.
insert into cursor_key
select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
