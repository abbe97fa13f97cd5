-- One page of the inventory: which organization each SIM card is assigned to, since when and until when.
--
-- Parameters:
--   $1 integer[]    ids of the organizations that the caller may see; null for all
--   $2 text         only assignments to this organization; null for all
--   $3 text         only SIM cards or organizations that start with this; null for all
--   $4 text         only assignments after this SIM card; null for all
--   $5 timestamptz  and after this valid_from of it; null: no start
--   $6 bigint       maximum number of rows; null for all
--   $7 bigint       number of rows to skip
--   $8 bigint       maximum number of SIM cards that start with $3 to count
--   $9 text         only assignments of this SIM card; null for all
--   $10 bigint      the version of the inventory whose total the client has; null for none
--
-- Columns:
--   total              bigint       assignments on all pages; null if the inventory is at $10, or if
--                                   there are more than $8 to count
--   inventory_version  bigint       differs whenever the inventory does
--   sim_card           text         ICCID; null if the page is empty
--   organization       text         name
--   valid_from         timestamptz  null: no start (the driver cannot read '-infinity')
--   valid_until        timestamptz  null: no end
--
-- No row: the organization does not exist, or the caller may not see it. An empty page is one row
-- with a null sim_card.
--
-- Identifiers consist of visible ASCII characters, so '' sorts before each of them and chr(127) after,
-- and those that start with a prefix are the ones from the prefix to the prefix followed by chr(127).
--
-- Rows without organization are ends of assignments, which are not listed themselves.
--
-- A list of all organizations follows the index of SIM cards. Any other list merges ranges of the index
-- by organization and SIM card. Only the ranges whose first rows come first can contribute to the page,
-- one for each of its rows, and only up to a row that bounds the page.

with organization as (
    select id from organizations where name = $2 and ($1::integer[] is null or id = any($1))
),
-- The organizations that limit the list.
selected as (
    select id, name, assignments, coalesce(starts_with(name, $3), false) as is_named
    from organizations
    where id = any($1) and $2::text is null
    union all
    select id, name, assignments, coalesce(starts_with(name, $3), false)
    from organizations
    where id = (select id from organization) and $2 is not null
),
-- The organizations that start with the prefix, if all are in the list.
named as (
    select id, name, assignments
    from organizations
    where name >= $3 and name < $3 || chr(127) and $1 is null and $2 is null
),
-- Where the page may start: the least row after ($4, $5). The minimum of timestamptz follows
-- '-infinity'.
start as (
    select
        coalesce($4::text, '') as iccid,
        case when $4 is null then '-infinity'
            else coalesce($5::timestamptz + interval '1 microsecond', '4714-11-24 00:00:00+00 BC')
        end as valid_from
),
ranges as (
    select
        id,
        name,
        case when is_named then '' else coalesce($3, '') end as first_iccid,
        case when is_named then chr(127) else coalesce($3, '') || chr(127) end as end_iccid
    from selected
    union all
    -- The SIM cards that start with the prefix are in the list of all organizations.
    select id, name, '', $3 from named where (select min(iccid) from sim_cards) < $3
    union all
    select id, name, $3 || chr(127), chr(127)
    from named
    where (select max(iccid) from sim_cards) > $3 || chr(127)
),
heads as (
    select ranges.id, ranges.name, ranges.end_iccid, head.iccid, head.valid_from
    from ranges
    cross join start
    cross join lateral (
        select iccid, valid_from
        from sim_card_assignments
        where organization_id = ranges.id
            -- With a second lower bound, the index would be read from either of them.
            and (iccid, valid_from) >= (
                greatest(ranges.first_iccid, start.iccid),
                case when ranges.first_iccid > start.iccid then '-infinity' else start.valid_from end
            )
            and iccid < ranges.end_iccid
        order by iccid, valid_from
        limit 1
    ) as head
    where $9::text is null
),
-- The ranges that can contribute to the page.
lowest as materialized (
    select * from heads order by iccid limit $6::bigint + $7
),
-- The last row of the page is not after this one: that many rows, an equal share of each range, are up
-- to it. No row if the ranges have fewer.
bound as (
    select share.iccid
    from lowest
    cross join lateral (
        select iccid
        from sim_card_assignments
        where organization_id = lowest.id
            and (iccid, valid_from) >= (lowest.iccid, lowest.valid_from)
            and iccid < lowest.end_iccid
        order by iccid, valid_from
        limit ($6 + $7 - 1) / greatest((select count(*) from lowest), 1) + 1
    ) as share
    where $6 is not null
    order by share.iccid
    limit 1 offset $6 + $7 - 1
),
-- The assignments of $9, which are few.
of_sim_card as materialized (
    select sim_cards.id, sim_cards.iccid, organizations.name, assignments.valid_from
    from sim_cards
    join sim_card_assignments as assignments on assignments.sim_card_id = sim_cards.id
    join organizations on organizations.id = assignments.organization_id
    where sim_cards.iccid = $9
        and ($1 is null or organizations.id = any($1))
        and ($2 is null or organizations.name = $2)
        and ($3 is null or starts_with(sim_cards.iccid, $3) or starts_with(organizations.name, $3))
),
listed as (
    (
        select sim_cards.id, sim_cards.iccid as sim_card, organizations.name as organization, assignments.valid_from
        from sim_cards
        join sim_card_assignments as assignments on assignments.sim_card_id = sim_cards.id
        join organizations on organizations.id = assignments.organization_id
        where $1 is null and $2 is null and $9 is null
            and sim_cards.iccid >= greatest(coalesce($3, ''), coalesce($4, ''))
            and sim_cards.iccid < coalesce($3, '') || chr(127)
            and (sim_cards.iccid > coalesce($4, '') or assignments.valid_from > coalesce($5, '-infinity'))
        order by sim_cards.iccid, assignments.valid_from
        limit $6 + $7
    )
    union all
    select assignments.sim_card_id, assignments.iccid, lowest.name, assignments.valid_from
    from lowest
    cross join lateral (
        select sim_card_id, iccid, valid_from
        from sim_card_assignments
        where organization_id = lowest.id
            and (iccid, valid_from) >= (lowest.iccid, lowest.valid_from)
            and iccid < lowest.end_iccid
            and iccid <= coalesce((select iccid from bound), chr(127))
        order by iccid, valid_from
        limit $6 + $7
    ) as assignments
    where lowest.iccid <= coalesce((select iccid from bound), chr(127))
    union all
    select id, iccid, name, valid_from
    from of_sim_card
    where iccid > coalesce($4, '') or iccid = $4 and valid_from > coalesce($5, '-infinity')
),
page as (
    select id, sim_card, organization, valid_from
    from listed
    order by sim_card, valid_from
    limit $6 offset $7
),
-- The assignments of SIM cards that start with the prefix, up to one more than the maximum.
prefixed as (
    (
        select assignments.organization_id
        from (
            select id
            from sim_cards
            where $1 is null and $2 is null and $9 is null and iccid >= $3 and iccid < $3 || chr(127)
            order by iccid
            limit $8::bigint + 1
        ) as cards
        left join lateral (
            select organization_id
            from sim_card_assignments
            where sim_card_id = cards.id
            offset 0
        ) as assignments on true
        limit $8 + 1
    )
    union all
    (
        select selected.id
        from selected
        cross join lateral (
            select
            from sim_card_assignments
            where organization_id = selected.id and iccid >= $3 and iccid < $3 || chr(127)
            limit $8 + 1
        ) as assignments
        where not selected.is_named
        limit $8 + 1
    )
),
total as (
    select case
        when $9 is not null then (select count(*) from of_sim_card)
        when $3 is null and $1 is null and $2 is null then (select assignments from inventory_version)
        when $3 is null then (select coalesce(sum(assignments), 0)::bigint from selected)
        when (select count(*) from prefixed) <= $8 then
            (select count(organization_id) from prefixed where organization_id not in (select id from named))
            + (select coalesce(sum(assignments), 0)::bigint from named)
            + (select coalesce(sum(assignments), 0)::bigint from selected where is_named)
    end as assignments
    where $10::bigint is null or $10 <> (select version from inventory_version)
)
select
    (select assignments from total) as total,
    (select version from inventory_version) as inventory_version,
    page.sim_card,
    page.organization,
    nullif(page.valid_from, '-infinity') as valid_from,
    (
        select min(later.valid_from)
        from sim_card_assignments as later
        where later.sim_card_id = page.id and later.valid_from > page.valid_from
    ) as valid_until
from (values (1)) as always
left join page on true
where $2 is null or exists (select from organization)
order by page.sim_card, page.valid_from
