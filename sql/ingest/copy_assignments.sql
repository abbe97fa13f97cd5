-- Stores new assignments, from standard input.

copy sim_card_assignments (sim_card_id, valid_from, organization_id, iccid) from stdin (format binary)
