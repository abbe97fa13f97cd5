-- Stores new SIM cards, from standard input.

copy sim_cards (id, iccid) from stdin (format binary)
