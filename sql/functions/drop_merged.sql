-- Drops the spans of sim_card_usage that have been merged for a minute, unless a session has an older
-- snapshot.
--
-- Columns:
--   drop_merged  text  a dropped chunk

create or replace function drop_merged() returns setof text
language plpgsql
volatile
as $$
declare
    safe timestamptz := unused_since();
    merged bigint;
begin
    for merged in
        update sim_card_spans set is_dropped = true
        where is_merged and not is_dropped and decided_at < safe
        returning span
    loop
        return query select drop_chunks(
            'sim_card_usage', older_than => merged + 35184372088832, newer_than => merged
        );
    end loop;
end
$$
