-- Records that a migration has been applied.
--
-- Parameters:
--   $1 integer  number
--   $2 text     name
--   $3 text     SHA-256 of the file
--   $4 text     version of simusage

insert into simusage_migrations (number, name, checksum, version) values ($1, $2, $3, $4)
