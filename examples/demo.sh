#!/usr/bin/env bash
# The whole way of a usage record, on a database that lives as long as this script: started, migrated, filled
# with generated usage, and served. `make demo` builds what it needs. Ctrl-C ends all of it.
set -euo pipefail
# Job control gives each child a process group of its own, so Ctrl-C reaches this script alone, which ends the
# children in order.
set -m
cd "$(dirname "${BASH_SOURCE[0]}")/.."

listen=${SIMUSAGE_SERVE_LISTEN:-127.0.0.1:8000}
simusage=target/release/simusage
folder=$(mktemp -d)

finish() {
  trap - EXIT INT TERM
  # The server first, so that its connections are gone when the database ends.
  for pid in ${server:-} ${database:-}; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$folder"
}
trap finish EXIT
trap 'exit 0' INT TERM

echo "Starting the embedded TimescaleDB …"
mkfifo "$folder/ready"
node embedded/server.mjs --port 0 > "$folder/ready" &
database=$!
read -r line < "$folder/ready" || { echo "The embedded TimescaleDB did not start." >&2; exit 1; }
export DATABASE_URL=${line#embedded TimescaleDB ready: }

"$simusage" migrate
"$simusage" generate usage --inventory examples/inventory.json > "$folder/usage.ndjson"
"$simusage" ingest --inventory examples/inventory.json "$folder/usage.ndjson"
"$simusage" serve --listen "$listen" &
server=$!
until (exec 3<>"/dev/tcp/${listen%:*}/${listen##*:}") 2>/dev/null; do
  kill -0 "$server" 2>/dev/null || exit 1
  sleep 0.1
done

cat <<END

See the usage of an organization in the browser:

  http://$listen/?organization=x00g8

The API has 28 days of 15 SIM cards. Try:

  curl 'http://$listen/api/v1/usage/organizations'
  curl 'http://$listen/api/v1/organization/x00g8/usage?start=2020-02-01&end=2020-02-28&every=1hour&page=1&size=5'
  curl 'http://$listen/api/v1/simcard/89440010/usage?start=2020-02-01&end=2020-02-28&every=1day'
  curl 'http://$listen/api/v1/usage/simcards?organization=x00g8&start=2020-02-10&end=2020-02-16'
  curl 'http://$listen/api/v1/inventory?size=3'

Another terminal can ingest into the same database, as

  export DATABASE_URL=$DATABASE_URL
  echo '{"sim-card-id": "89440010", "bytes-used": "1024", "date": "2020-02-14T12:00:00Z"}' | $simusage ingest -

Ctrl-C ends it all.
END
wait "$server"
