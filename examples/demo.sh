#!/usr/bin/env bash
# Starts a temporary TimescaleDB, loads sample usage into it and serves the API until Ctrl-C. Run it
# with `make demo`, which builds the program first and names it in SIMUSAGE.
set -euo pipefail
# With job control each child has its own process group, so that signals to this script's group, such
# as Ctrl-C, are not sent to the children, which are stopped in order.
set -m
cd "$(dirname "${BASH_SOURCE[0]}")/.."

listen=${SIMUSAGE_SERVE_LISTEN:-127.0.0.1:8000}
simusage=${SIMUSAGE:-target/demo/simusage}
folder=$(mktemp -d)

# Runs beside this script, and notices from the end of its pipe that the script has ended, also by
# SIGKILL. Each line of the pipe is a process that has started or, with a minus, has ended. It stops
# the others, the last one first: the server has to close its connections before the database stops.
clean_up() {
  trap '' HUP INT TERM
  local pids=() pid
  while read -r pid; do
    case $pid in
      -*) pids=("${pids[@]/#"${pid#-}"/}") ;;
      *) pids=("$pid" "${pids[@]}") ;;
    esac
  done < "$folder/started"
  for pid in "${pids[@]}"; do
    [ -n "$pid" ] && kill "$pid" 2>/dev/null || continue
    for _ in {1..300}; do
      kill -0 "$pid" 2>/dev/null || continue 2
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
  done
  rm -rf "$folder"
}
mkfifo "$folder/started" "$folder/ready"
clean_up &
cleaner=$!
exec {started}> "$folder/started"

finish() {
  trap '' EXIT HUP INT TERM
  exec {started}>&-
  wait "$cleaner" || true
}
trap finish EXIT
trap 'exit 0' HUP INT TERM

echo "Starting the embedded TimescaleDB …"
# With the pipe's end in a child, it would not end with this script.
node embedded/server.mjs --port 0 > "$folder/ready" {started}>&- &
database=$!
echo "$database" >&"$started"
read -r line < "$folder/ready" || { echo "The embedded TimescaleDB did not start." >&2; exit 1; }
export DATABASE_URL=${line#embedded TimescaleDB ready: }

# In the background, so that a signal does not have to wait for it.
run() {
  "$simusage" "$@" {started}>&- &
  local pid=$!
  echo "$pid" >&"$started"
  wait "$pid"
  echo "-$pid" >&"$started"
}
run migrate
run generate usage --inventory examples/inventory.json > "$folder/usage.ndjson"
run ingest --inventory examples/inventory.json "$folder/usage.ndjson"
"$simusage" serve --listen "$listen" {started}>&- &
server=$!
echo "$server" >&"$started"
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
