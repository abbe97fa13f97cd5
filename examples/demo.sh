#!/usr/bin/env bash
# Starts a temporary TimescaleDB, loads sample usage into it and serves the API until Ctrl-C. Run it
# with `make demo`, which builds the program first.
set -euo pipefail
# With job control each child has its own process group, so that Ctrl-C is only sent to this script,
# which stops the children in order.
set -m
cd "$(dirname "${BASH_SOURCE[0]}")/.."

listen=${SIMUSAGE_SERVE_LISTEN:-127.0.0.1:8000}
simusage=target/release/simusage
folder=$(mktemp -d)

finish() {
  trap - EXIT INT TERM
  # Stop the server first, so that it has closed its connections when the database stops.
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

Open the usage of an organization in a browser:

  http://$listen/?organization=x00g8

The database has 28 days of usage of 15 SIM cards. Try:

  curl 'http://$listen/api/v1/usage/organizations'
  curl 'http://$listen/api/v1/organization/x00g8/usage?start=2020-02-01&end=2020-02-28&every=1hour&page=1&size=5'
  curl 'http://$listen/api/v1/simcard/89440010/usage?start=2020-02-01&end=2020-02-28&every=1day'
  curl 'http://$listen/api/v1/usage/simcards?organization=x00g8&start=2020-02-10&end=2020-02-16'
  curl 'http://$listen/api/v1/inventory?size=3'

To ingest into the same database from another terminal:

  export DATABASE_URL=$DATABASE_URL
  echo '{"sim-card-id": "89440010", "bytes-used": "1024", "date": "2020-02-14T12:00:00Z"}' | $simusage ingest -

Press Ctrl-C to stop.
END
wait "$server"
