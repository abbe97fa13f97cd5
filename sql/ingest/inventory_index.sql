-- The whole inventory in any order, to standard output. A valid_from of '-infinity' means that the
-- assignment has no start.

copy sim_card_assignments (iccid, sim_card_id, valid_from, organization_id) to stdout (format binary)
