#!/usr/bin/env python3
"""Measures simusage with a large fleet: bulk load, answers, a stream with late records, disk and memory.

    pip install -r requirements.txt
    cargo build --release
    ./fleet.py --server postgresql://postgres@127.0.0.1/postgres
    ./fleet.py --server URL --sim-cards 10000 --records 300000 --seconds 10     # a quick check

By default: 30 million records of 1,000,000 SIM cards and 1,000 organizations over 30 days. `--before BINARY` measures
another build of simusage in the same run, for example that of an earlier commit. psql's \\copy into a bare hypertable and
DuckDB, which sums the same rows, show what users would otherwise choose. Every total is checked; a wrong one ends the run.

The server must be on this machine. All databases are named simusage_bench_fleet_… and are dropped at the end.
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb
import psycopg2

PROJECT = Path(__file__).resolve().parents[2]
SIMUSAGE = PROJECT / "target/release/simusage"
FIRST_DAY = datetime(2020, 2, 1, tzinfo=timezone.utc)
DATABASE = "simusage_bench_fleet_{}"
PORT = 18040
PROBE = "probe"
"""The SIM card and organization whose records show how long a record of the stream takes into the answers."""

BARE = """
create extension if not exists timescaledb;
create table usage (time timestamptz not null, sim_card text not null, bytes bigint not null);
select create_hypertable('usage', by_range('time', interval '1 day'), create_default_indexes => false);
"""


class Server:
    """The server under test and its databases."""

    def __init__(self, url):
        self.url = url

    def database_url(self, database):
        base, _, parameters = self.url.partition("?")
        return base.rsplit("/", 1)[0] + "/" + database + ("?" + parameters if parameters else "")

    def execute(self, database, *statements):
        """Runs statements outside transactions and returns the rows of the last one."""
        connection = psycopg2.connect(self.database_url(database) if database else self.url)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else None
        finally:
            connection.close()

    def recreate(self, database):
        self.drop(database)
        self.execute(None, f"create database {database}")

    def drop(self, database):
        self.execute(None, f"drop database if exists {database} with (force)")

    def megabytes(self, database):
        return self.execute(database, "select pg_database_size(current_database())")[0][0] / 1e6


class Simusage:
    """One build of simusage with its own database."""

    def __init__(self, name, binary, server):
        self.name, self.binary, self.server = name, binary, server
        self.database = DATABASE.format(name)

    def environment(self):
        return {
            **os.environ,
            "DATABASE_URL": self.server.database_url(self.database),
            "SIMUSAGE_LOG": "warn",
            "SIMUSAGE_SERVE_REQUESTS_PER_SECOND": "0",
        }

    def run(self, *arguments):
        """Runs to the end; returns standard output, seconds and peak memory in MB."""
        started = time.perf_counter()
        process = subprocess.Popen([self.binary, *map(str, arguments)], stdout=subprocess.PIPE, env=self.environment())
        memory = 0
        # The kernel's own maximum would include this process, from which the child is forked.
        while process.poll() is None:
            memory = max(memory, peak_memory(process.pid))
            time.sleep(0.02)
        if process.returncode:
            sys.exit(f"{self.name}: simusage {arguments[0]} ended with status {process.returncode}")
        return process.stdout.read(), time.perf_counter() - started, memory

    @contextlib.contextmanager
    def serve(self):
        """Runs a server for the time of a block."""
        arguments = ["serve", "--listen", f"127.0.0.1:{PORT}"]
        with subprocess.Popen([self.binary, *arguments], env=self.environment()) as process:
            try:
                for _ in range(200):
                    with contextlib.suppress(OSError):
                        get("/readyz")
                        break
                    time.sleep(0.05)
                yield process
            finally:
                process.terminate()


def peak_memory(pid):
    """The peak memory of a running process in MB, or 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
    return 0


def get(path, connection=None):
    """Requests a path; returns status and body."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def generate(path, *arguments):
    """Writes what `simusage generate` prints, unless the file exists."""
    if not path.exists():
        with path.with_suffix(".part").open("wb") as output:
            subprocess.run([SIMUSAGE, "generate", *map(str, arguments)], check=True, stdout=output)
        path.with_suffix(".part").rename(path)
    return path


class Inputs:
    """The records in every form that a contender reads."""

    def __init__(self, folder, arguments):
        name = f"{arguments.sim_cards}-{arguments.records}"
        self.records, self.organizations = arguments.records, arguments.organizations
        self.inventory = folder / f"inventory-{name}.csv"
        if not self.inventory.exists():
            generate(self.inventory, "inventory", "--sim-cards", arguments.sim_cards, "--organizations", arguments.organizations)
            with self.inventory.open("a") as inventory:
                inventory.write(f"{PROBE},{PROBE}\n")
        options = ["usage", "--inventory", self.inventory, "--records", arguments.records, "--days", arguments.days]
        self.csv = generate(folder / f"usage-{name}.csv", *options, "--format", "csv")
        self.ndjson = generate(folder / f"usage-{name}.ndjson", *options, "--format", "ndjson")
        self.duckdb = duckdb.connect()
        started = time.perf_counter()
        self.duckdb.execute(
            f"create table usage as select * from read_csv('{self.csv}', header = true, columns = "
            "{'sim_card': 'varchar', 'bytes': 'bigint', 'time': 'timestamp'})"
        )
        self.duckdb_load = time.perf_counter() - started
        self.bytes = self.duckdb.execute("select sum(bytes)::bigint from usage").fetchone()[0]
        others = f"select distinct sim_card from usage where sim_card <> '{PROBE}' limit 1000"
        self.sim_cards = [row[0] for row in self.duckdb.execute(others).fetchall()]


def load(build, inputs, results):
    """Loads inventory and records, and checks the totals of the answers."""
    build.server.recreate(build.database)
    build.run("migrate")
    _, seconds, memory = build.run("ingest", "--inventory", inputs.inventory)
    results.add(build.name, "inventory: seconds to load", seconds)
    results.add(build.name, "inventory: peak memory, MB", memory)
    output, seconds, memory = build.run("ingest", "--json", inputs.ndjson)
    stored = json.loads(output)["stored"]
    results.add(build.name, "records/s to answers", stored / seconds)
    results.add(build.name, "ingest: peak memory, MB", memory)
    results.add(build.name, "disk, MB", build.server.megabytes(build.database))
    with build.serve():
        status, body = get("/api/v1/usage/organizations?size=1")
        total = json.loads(body).get("bytes-used-total")
        if (stored, status, total) != (inputs.records, 200, inputs.bytes):
            sys.exit(f"{build.name}: {stored} records, status {status}, {total} instead of {inputs.bytes} bytes")


def endpoints(inputs, first, days):
    """The measured requests, by name; each is a function that returns a path with random parameters."""
    month = f"start={first:%F}&end={first + timedelta(days=days - 1):%F}"
    half = f"start={first + timedelta(days=days - 27):%F}&end={first + timedelta(days=days - 13):%F}"
    sim_card = lambda: random.choice(inputs.sim_cards)
    organization = lambda: f"org{random.randrange(inputs.organizations):05}"
    return {
        "SIM card, month by day, UTC": lambda: f"/api/v1/simcard/{sim_card()}/usage?{month}&every=1day",
        "SIM card, month by day, Kathmandu": lambda: f"/api/v1/simcard/{sim_card()}/usage?{month}&every=1day&tz=Asia/Kathmandu",
        "organization, month by day, UTC": lambda: f"/api/v1/organization/{organization()}/usage?{month}&every=1day",
        "organization, month by day, Kathmandu":
            lambda: f"/api/v1/organization/{organization()}/usage?{month}&every=1day&tz=Asia/Kathmandu",
        "organization, month by hour": lambda: f"/api/v1/organization/{organization()}/usage?{month}&every=1hour",
        "five SIM cards with the highest usage, month": lambda: f"/api/v1/usage/simcards?{month}&size=5",
        "five SIM cards with the highest usage, 15 days": lambda: f"/api/v1/usage/simcards?{half}&size=5",
        # No page of these sizes has been asked for, so none is cached.
        "the highest usage, month, not cached": lambda: f"/api/v1/usage/simcards?{month}&size={random.randrange(6, 900)}",
        "the highest usage, 15 days, not cached": lambda: f"/api/v1/usage/simcards?{half}&size={random.randrange(6, 900)}",
        "the highest usage, month in Berlin, not cached":
            lambda: f"/api/v1/usage/simcards?{month}&size={random.randrange(6, 900)}&tz=Europe/Berlin",
        "five SIM cards of an organization, month":
            lambda: f"/api/v1/usage/simcards?{month}&size=5&organization={organization()}",
        "organizations, month": lambda: f"/api/v1/usage/organizations?{month}&size=5",
        "inventory page": lambda: "/api/v1/inventory?size=5",
        "inventory search": lambda: f"/api/v1/inventory?q={sim_card()[:12]}&size=5",
    }


def measure_answers(build, inputs, arguments, results):
    """Requests every endpoint with 1 and 16 clients."""
    with build.serve():
        for name, path in endpoints(inputs, FIRST_DAY, arguments.days).items():
            for clients in (1, 16):
                latencies, statuses = request_for(arguments.answer_seconds, clients, path)
                errors = {status: count for status, count in statuses.items() if status != 200}
                label = f"{name}, {clients} client{'s' if clients > 1 else ''}"
                latencies = [took for _, took in latencies]
                results.add(build.name, f"{label}: p50 ms", quantile(latencies, 0.5) * 1e3)
                results.add(build.name, f"{label}: p99 ms", quantile(latencies, 0.99) * 1e3)
                if errors:
                    print(f"{build.name}: {label}: {errors}", file=sys.stderr)


def request_for(seconds, clients, path):
    """Requests paths for a while; returns when each was sent, its latency in seconds, and the number of answers by status."""
    latencies, statuses, lock = [], {}, threading.Lock()
    deadline = time.perf_counter() + seconds

    def client():
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        while time.perf_counter() < deadline:
            started = time.perf_counter()
            status, _ = get(path(), connection)
            took = time.perf_counter() - started
            with lock:
                latencies.append((started, took))
                statuses[status] = statuses.get(status, 0) + 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, statuses


def quantile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


class Stream:
    """Feeds an ingest at a constant rate. Every 200 ms one record of the probe is among the others."""

    INTERVAL = 0.2

    def __init__(self, build, inputs, rate, late):
        self.build, self.inputs, self.rate, self.late = build, inputs, rate, late
        self.lines = 0
        self.probes = []
        """For each probe: how many lines were written up to it."""

    def feed(self, seconds):
        """Writes the records and waits for the end of the ingest; returns the seconds that it took."""
        arguments = ["ingest", "--format", "csv", "--source-id", f"fleet-{self.rate}-{self.late}", "-"]
        process = subprocess.Popen([self.build.binary, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   env=self.build.environment(), text=True)
        process.stdin.write("sim-card-id,bytes-used,date\n")
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            process.stdin.writelines(self.portion(max(1, int(elapsed * self.rate) - self.lines)))
            process.stdin.flush()
            time.sleep(self.INTERVAL)
        process.stdin.close()
        if process.wait():
            sys.exit(f"{self.build.name}: the stream's ingest failed")
        return time.perf_counter() - started

    def portion(self, count):
        """Lines of the present, some of them late by up to seven days, with a probe at the end."""
        now = datetime.now(timezone.utc)
        for _ in range(count - 1):
            late = timedelta(seconds=random.randrange(7 * 86_400)) if random.random() * 100 < self.late else timedelta(0)
            yield f"{random.choice(self.inputs.sim_cards)},1000,{now - late:%FT%TZ}\n"
        yield f"{PROBE},1,{now:%FT%TZ}\n"
        self.lines += count
        self.probes.append(self.lines)


def measure_stream(build, inputs, rate, late, arguments, results):
    """Runs a stream and measures the delay from the commit of a probe to the first answer that contains it.

    Meanwhile, some clients request all kinds of answers. The figures of the first and the last quarter show whether
    anything grows with time.
    """
    label, seconds = f"stream of {rate:,}/s, {late} % late", arguments.seconds
    today = datetime.now(timezone.utc).date()
    paths = list(endpoints(inputs, today - timedelta(days=arguments.days - 1), arguments.days).values())
    with build.serve():
        stream, delays, done, asked = Stream(build, inputs, rate, late), [], threading.Event(), []
        before, started = probe_records(), time.perf_counter()
        watcher = threading.Thread(target=watch, args=(build, stream, before, delays, done))
        clients = threading.Thread(
            target=lambda: asked.append(request_for(seconds, arguments.clients, lambda: random.choice(paths)()))
        )
        for thread in (watcher, clients):
            thread.start()
        took = stream.feed(seconds)
        clients.join()
        time.sleep(3)
        done.set()
        watcher.join()
        seen = probe_records() - before
    if seen != len(stream.probes):
        sys.exit(f"{build.name}: {label}: {seen} of {len(stream.probes)} probes are in the answers")
    results.add(build.name, f"{label}: seconds behind at the end", took - seconds)
    [(latencies, statuses)] = asked
    print(f"{build.name}: {label}: answers by status: {statuses}", file=sys.stderr)
    for name, figures in (("commit to answer", delays), ("answers", latencies)):
        for part, start, end in (("", 0, 1), (" in the first quarter", 0, 0.25), (" in the last quarter", 0.75, 1)):
            within = [took for at, took in figures if start <= (at - started) / seconds < end]
            results.add(build.name, f"{label}: {name}{part}: p50 ms", quantile(within, 0.5) * 1e3)
            results.add(build.name, f"{label}: {name}{part}: p99 ms", quantile(within, 0.99) * 1e3)


def probe_records(connection=None):
    """The number of probe records in the answers."""
    today = datetime.now(timezone.utc)
    path = f"/api/v1/simcard/{PROBE}/usage?start={today - timedelta(days=1):%F}&end={today:%F}&every=1day"
    status, body = get(path, connection)
    return sum(item["records"] for item in json.loads(body)["items"]) if status == 200 else 0


def watch(build, stream, before, delays, done):
    """Polls what is committed and what is answered."""
    database = psycopg2.connect(build.server.database_url(build.database))
    database.autocommit = True
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    source = f"fleet-{stream.rate}-{stream.late}"
    committed, answered, committed_at = 0, 0, {}
    with database.cursor() as cursor:
        while not done.is_set():
            cursor.execute("select stored + rejected from ingest_sources where kind = 'stream' and identity = %s", (source,))
            stored = (cursor.fetchone() or (0,))[0]
            now = time.perf_counter()
            while committed < len(stream.probes) and stream.probes[committed] <= stored:
                committed_at[committed] = now
                committed += 1
            seen = probe_records(connection) - before
            now = time.perf_counter()
            while answered < min(seen, committed):
                at = committed_at.pop(answered)
                delays.append((at, now - at))
                answered += 1
            time.sleep(0.02)
    database.close()


def measure_others(server, inputs, results):
    """psql's \\copy into a bare hypertable, and DuckDB on the same rows."""
    database = DATABASE.format("bare")
    server.recreate(database)
    server.execute(database, BARE)
    started = time.perf_counter()
    copy = rf"\copy usage (sim_card, bytes, time) from '{inputs.csv}' csv header"
    subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", server.database_url(database), "-c", copy], check=True)
    results.add("psql \\copy, bare", "records/s to answers", inputs.records / (time.perf_counter() - started))
    results.add("psql \\copy, bare", "disk, MB", server.megabytes(database))
    total = server.execute(database, "select sum(bytes)::bigint from usage")[0][0]
    server.drop(database)
    if total != inputs.bytes:
        sys.exit(f"psql stored {total} instead of {inputs.bytes} bytes")
    results.add("DuckDB", "records/s to answers", inputs.records / inputs.duckdb_load)
    for label, condition in (("month", "true"), ("15 days", "time >= '2020-02-04' and time < '2020-02-19'")):
        query = f"select sim_card, sum(bytes) as total from usage where {condition} group by 1 order by 2 desc limit 5"
        started = time.perf_counter()
        inputs.duckdb.execute(query).fetchall()
        name = f"five SIM cards with the highest usage, {label}, 1 client: p50 ms"
        results.add("DuckDB", name, (time.perf_counter() - started) * 1e3)


class Results:
    """Figures by measurement and contender."""

    def __init__(self):
        self.rows = {}

    def add(self, contender, measurement, figure):
        self.rows.setdefault(measurement, {}).setdefault(contender, []).append(figure)
        print(f"{contender}: {measurement}: {figure:,.1f}", file=sys.stderr)

    def print_table(self, server, arguments):
        version = server.execute(None, "select current_setting('server_version')")[0][0]
        contenders = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        print(f"\n{arguments.records:,} records of {arguments.sim_cards:,} SIM cards over {arguments.days} days; "
              f"PostgreSQL {version}, {os.cpu_count()} cores of {platform.machine()}\n")
        print("| measurement | " + " | ".join(contenders) + " |")
        print("| --- |" + " ---: |" * len(contenders))
        for measurement, row in self.rows.items():
            figures = (f"{statistics.median(row[name]):,.4g}" if name in row else "" for name in contenders)
            print(f"| {measurement} | " + " | ".join(figures) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="URL of a server on this machine, as a superuser")
    parser.add_argument("--before", help="another build of simusage to measure in the same run")
    parser.add_argument("--folder", type=Path, help="directory for the input files, which are kept for the next run")
    parser.add_argument("--sim-cards", type=int, default=1_000_000)
    parser.add_argument("--organizations", type=int, default=1_000)
    parser.add_argument("--records", type=int, default=30_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rates", type=int, nargs="*", default=[5_000, 20_000], help="records per second of the streams")
    parser.add_argument("--late", type=float, nargs="*", default=[0, 1, 10], help="percentages of late records")
    parser.add_argument("--seconds", type=int, default=120, help="length of each stream")
    parser.add_argument("--clients", type=int, default=3, help="clients that send requests during each stream")
    parser.add_argument("--answer-seconds", type=int, default=5, help="time per endpoint and number of clients")
    arguments = parser.parse_args()
    server, results = Server(arguments.server), Results()
    builds = [Simusage("simusage", SIMUSAGE, server)]
    if arguments.before:
        builds.append(Simusage("before", arguments.before, server))
    with tempfile.TemporaryDirectory() as temporary:
        inputs = Inputs(arguments.folder or Path(temporary), arguments)
        measure_others(server, inputs, results)
        for build in random.sample(builds, len(builds)):
            try:
                load(build, inputs, results)
                measure_answers(build, inputs, arguments, results)
                for rate in arguments.rates:
                    for late in arguments.late:
                        measure_stream(build, inputs, rate, late, arguments, results)
            finally:
                server.drop(build.database)
    results.print_table(server, arguments)


if __name__ == "__main__":
    main()
