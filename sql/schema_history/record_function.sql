-- Records that a function has been applied.
--
-- Parameters:
--   $1 text  name
--   $2 text  SHA-256 of the file
--   $3 text  version of simusage

insert into simusage_functions (name, checksum, version) values ($1, $2, $3)
on conflict (name) do update
set checksum = excluded.checksum, version = excluded.version, applied_at = now()
