#!/usr/bin/env python3
"""Compares simusage's ingest with other ways of getting the same records into TimescaleDB.

Each round runs every contender once, in an order that is shuffled anew, each into a database of its own, so that a
machine whose speed drifts hurts all alike. The figure is the median of the rounds, and next to it the median of the
ratios to `psql \\copy` of the same round. After every run the rows are counted and their bytes summed; a contender
that loses a byte has no figure.

    pip install -r requirements.txt
    cargo build --release
    ./ingest.py --server postgresql://postgres@127.0.0.1/postgres --records 2000000 --rounds 5

simusage Kafka reads from a broker that serves the records from memory (tests/kafka/broker.py), a message each in two
partitions. A real broker, given as --kafka, has its topic simusage-bench made anew and filled with them once instead.
Every round reads all of the topic, because each database has a ledger of its own.

The server must be on this machine: one contender has it read a file. It is asked for nothing but databases to make and
to drop, all of them named simusage_bench_….
"""

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

PROJECT = Path(__file__).resolve().parents[2]
SIMUSAGE = PROJECT / "target/release/simusage"
BROKER = PROJECT / "tests/kafka/broker.py"
INSERTED_ROWS = 20_000
"""Rows that are inserted one by one: enough for a rate, few enough to wait for."""

TOPIC = "simusage-bench"
PARTITIONS = 2

BARE = """
create extension if not exists timescaledb;
create table usage (time timestamptz not null, sim_card text not null, organization text not null, bytes bigint not null);
select create_hypertable('usage', by_range('time', interval '1 day'), create_default_indexes => false);
"""
BARE_COLUMNSTORE = """
alter table usage set (timescaledb.enable_columnstore = true, timescaledb.orderby = 'time', timescaledb.segmentby = '');
"""


@dataclass
class Inputs:
    """The same records in every form that a contender reads."""

    folder: Path
    records: int
    bytes: int
    inventory: Path
    ndjson: Path
    csv: Path
    text_keys: Path
    """CSV of the bare hypertable's columns: time, SIM card, organization, bytes."""


@dataclass
class Measured:
    """What the runs of a contender took."""

    rates: list = field(default_factory=list)
    """Rows stored per second."""
    shown: list = field(default_factory=list)
    """Rows per second until they are in every aggregate; for those that have aggregates."""
    cpu: list = field(default_factory=list)
    """CPU seconds of the client per million rows."""
    wal: list = field(default_factory=list)
    """Bytes of write-ahead log per row."""


class Server:
    """The server under test, and databases on it."""

    def __init__(self, url, direct_compress):
        self.url = url
        self.options = "-c timescaledb.enable_direct_compress_copy=on" if direct_compress else ""

    def of(self, database):
        """The URL of a database."""
        base, _, parameters = self.url.partition("?")
        return base.rsplit("/", 1)[0] + "/" + database + ("?" + parameters if parameters else "")

    def execute(self, database, *statements):
        """Runs statements outside of transactions; answers the first row of the last."""
        connection = psycopg2.connect(self.of(database) if database else self.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
        connection.close()
        return row

    def environment(self, database):
        """What a client's process gets."""
        return {**os.environ, "DATABASE_URL": self.of(database), "PGOPTIONS": self.options}


def run(*command, **arguments):
    """Runs a program to its end."""
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **arguments)


def make_inputs(folder, records, sim_cards):
    """Generates the records once."""
    folder = Path(folder)
    inventory = folder / "inventory.csv"
    inventory.write_bytes(subprocess.check_output([SIMUSAGE, "generate", "inventory", "--sim-cards", str(sim_cards)]))
    paths = {}
    for form in ("ndjson", "csv"):
        paths[form] = folder / f"usage.{form}"
        with paths[form].open("wb") as output:
            arguments = ["--inventory", inventory, "--records", str(records), "--format", form]
            subprocess.run([SIMUSAGE, "generate", "usage", *arguments], check=True, stdout=output)
    owners = dict(line.split(",") for line in inventory.read_text().splitlines()[1:])
    text_keys = folder / "text_keys.csv"
    total = 0
    with paths["csv"].open() as source, text_keys.open("w") as target:
        next(source)
        for line in source:
            sim_card, used, date = line.rstrip().split(",")
            total += int(used)
            target.write(f"{date},{sim_card},{owners[sim_card]},{used}\n")
    # The server reads this file itself, under a user of its own.
    folder.chmod(0o755)
    return Inputs(folder, records, total, inventory, paths["ndjson"], paths["csv"], text_keys)


def refresh_seconds(server, database, *arguments):
    """Has simusage ingest; answers how long it spent refreshing its aggregates, while it stored nothing."""
    env = server.environment(database)
    if server.options:
        separator = "&" if "?" in env["DATABASE_URL"] else "?"
        option = server.options.replace(" ", "%20").replace("=", "%3D")
        env["DATABASE_URL"] += f"{separator}options={option}"
    output = subprocess.run([SIMUSAGE, "ingest", "--json", *arguments], check=True, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, env=env).stdout
    return json.loads(output)["refresh-ms"] / 1000


def simusage(path):
    """simusage, with the refresh of its aggregates."""

    def prepare(server, database, inputs):
        env = server.environment(database)
        # The others' hypertable has no background jobs either; these would begin with the run, and move what it is storing.
        jobs = {"SIMUSAGE_STORAGE_REFRESH_EVERY_MINUTES": "0", "SIMUSAGE_STORAGE_COLUMNSTORE_AFTER_DAYS": "0"}
        run(SIMUSAGE, "migrate", env={**env, **jobs})
        run(SIMUSAGE, "ingest", "--inventory", inputs.inventory, env=env)

    def measure(server, database, inputs):
        return inputs.records, refresh_seconds(server, database, getattr(inputs, path))

    return prepare, measure, "usage_records"


def simusage_kafka(brokers):
    """simusage reading the same records from Kafka, a message each."""
    prepare, _, table = simusage("ndjson")

    def measure(server, database, inputs):
        arguments = ["--kafka", brokers, "--topic", TOPIC, "--group", "simusage-bench", "--until-end"]
        return inputs.records, refresh_seconds(server, database, *arguments)

    return prepare, measure, table


@contextlib.contextmanager
def broker_in_memory(path):
    """A broker that serves each line of a file as a message; gives its address."""
    command = [sys.executable, BROKER, path, "--topic", TOPIC, "--partitions", str(PARTITIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        try:
            # It says so once it has read the file.
            yield broker.stdout.readline().strip() or sys.exit("the broker ended")
        finally:
            broker.terminate()


@contextlib.contextmanager
def broker_at(brokers, path):
    """A real broker, to whose topic each line of a file is sent as a message; gives its address."""
    fill_topic(brokers, path)
    yield brokers


def fill_topic(brokers, path):
    """Sends each line of a file as a message."""
    admin = AdminClient({"bootstrap.servers": brokers})
    for future in admin.delete_topics([TOPIC]).values():
        try:
            future.result()
        except Exception as error:  # The topic is not there yet.
            print(f"{TOPIC}: {error}", file=sys.stderr)
    for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
        future.result()
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 50, "batch.size": 1_000_000})
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            while True:
                try:
                    producer.produce(TOPIC, line.rstrip(), partition=number % PARTITIONS)
                    break
                except BufferError:
                    producer.poll(0.1)
    producer.flush()


def bare(columnstore):
    """Makes the bare hypertable with text keys."""

    def prepare(server, database, _inputs):
        server.execute(database, BARE, *([BARE_COLUMNSTORE] if columnstore else []))

    return prepare


def psql_copy(server, database, inputs):
    """psql reads the file and sends it."""
    copy = rf"\copy usage from '{inputs.text_keys}' csv"
    run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", server.of(database), "-c", copy, env=server.environment(database))
    return inputs.records, None


def server_copy(server, database, inputs):
    """The server reads a file of binary tuples: no client, no network, no parsing. The limit."""
    binary = inputs.folder / "usage.binary"
    run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", server.of(database), "-c", f"copy usage from '{binary}' (format binary)",
        env=server.environment(database))
    return inputs.records, None


def row_inserts(server, database, inputs):
    """The way of the system that simusage replaces: an INSERT a row, a commit every 200."""
    connection = psycopg2.connect(server.of(database))
    with connection.cursor() as cursor, inputs.text_keys.open() as source:
        for index, line in zip(range(INSERTED_ROWS), source):
            cursor.execute("insert into usage values (%s, %s, %s, %s)", line.rstrip().split(","))
            if index % 200 == 199:
                connection.commit()
    connection.commit()
    connection.close()
    return INSERTED_ROWS, None


def parallel_copy(binary):
    """timescaledb-parallel-copy with one worker a core."""

    def measure(server, database, inputs):
        run(binary, "--connection", server.of(database), "--table", "usage", "--file", inputs.text_keys,
            "--workers", os.cpu_count(), env=server.environment(database))
        return inputs.records, None

    return measure


def make_binary(server, inputs):
    """Writes the file that the server reads."""
    database = "simusage_bench_binary"
    server.execute(None, f"drop database if exists {database}", f"create database {database}")
    server.execute(database, "create table usage (time timestamptz, sim_card text, organization text, bytes bigint)")
    run("psql", "-q", "-d", server.of(database), "-c", rf"\copy usage from '{inputs.text_keys}' csv")
    binary = inputs.folder / "usage.binary"
    run("psql", "-q", "-d", server.of(database), "-c", rf"\copy usage to '{binary}' (format binary)")
    binary.chmod(0o644)
    server.execute(None, f"drop database {database}")


def measure(server, name, contender, inputs, measured):
    """Runs a contender once, and checks what it stored."""
    prepare, ingest, table = contender
    database = "simusage_bench_run"
    server.execute(None, f"drop database if exists {database} with (force)", f"create database {database}")
    try:
        prepare(server, database, inputs)
        server.execute(database, "checkpoint")
        wal = server.execute(database, "select pg_current_wal_insert_lsn()")[0]
        cpu = cpu_seconds()
        started = time.perf_counter()
        rows, refreshing = ingest(server, database, inputs)
        elapsed = time.perf_counter() - started
        cpu = cpu_seconds() - cpu
        wal = server.execute(database, f"select pg_current_wal_insert_lsn() - '{wal}'")[0]
        stored = server.execute(database, f"select count(*), sum(bytes)::bigint from {table}")
        if rows == inputs.records and stored != (inputs.records, inputs.bytes):
            sys.exit(f"{name} stored {stored} instead of {(inputs.records, inputs.bytes)}")
        if stored[0] != rows:
            sys.exit(f"{name} stored {stored[0]} instead of {rows} rows")
    finally:
        server.execute(None, f"drop database {database} with (force)")
    measured.rates.append(rows / (elapsed - (refreshing or 0)))
    if refreshing is not None:
        measured.shown.append(rows / elapsed)
    measured.cpu.append(cpu / rows * 1e6)
    measured.wal.append(float(wal) / rows)


def cpu_seconds():
    """CPU time of this process and its children so far; it waits, and counts only where it is the client. A broker does
    not count, for it has not ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def print_table(results, server, arguments):
    """Prints the table that the README shows."""
    version = server.execute(None, "select current_setting('server_version')")[0]
    track = "direct compress" if server.options else "row store"
    print(f"\n{arguments.records:,} records of {arguments.sim_cards:,} SIM cards, {arguments.rounds} rounds, {track}; "
          f"PostgreSQL {version}, {os.cpu_count()} cores of {platform.machine()}\n")
    print("| way | rows/s stored | ratio to psql | rows/s with aggregates | client CPU s per million | WAL bytes per row |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    reference = results["psql \\copy CSV, text keys"].rates
    for name, measured in results.items():
        ratios = [mine / theirs for mine, theirs in zip(measured.rates, reference)]
        shown = f"{statistics.median(measured.shown):,.0f}" if measured.shown else ""
        print(f"| {name} | {statistics.median(measured.rates):,.0f} | {statistics.median(ratios):.3g} | {shown} "
              f"| {statistics.median(measured.cpu):.2f} | {statistics.median(measured.wal):.0f} |")


def main():
    """Reads the options, runs the rounds, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="URL of a server on this machine, as a superuser")
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--sim-cards", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--direct-compress", action="store_true", help="COPY straight into the columnstore, for all who can")
    parser.add_argument("--kafka", help="a broker's address, instead of the broker that serves from memory")
    parser.add_argument("--parallel-copy", help="timescaledb-parallel-copy's binary, to have it run, too")
    arguments = parser.parse_args()
    server = Server(arguments.server, arguments.direct_compress)
    prepare = bare(arguments.direct_compress)
    contenders = {
        "simusage NDJSON": simusage("ndjson"),
        "simusage CSV": simusage("csv"),
        "psql \\copy CSV, text keys": (prepare, psql_copy, "usage"),
        "server-side binary COPY, text keys": (prepare, server_copy, "usage"),
        "psycopg2 INSERT, commit every 200": (prepare, row_inserts, "usage"),
    }
    if arguments.parallel_copy:
        contenders["timescaledb-parallel-copy"] = (prepare, parallel_copy(arguments.parallel_copy), "usage")
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(folder, arguments.records, arguments.sim_cards)
        make_binary(server, inputs)
        topic = broker_at(arguments.kafka, inputs.ndjson) if arguments.kafka else broker_in_memory(inputs.ndjson)
        with topic as brokers:
            contenders["simusage Kafka"] = simusage_kafka(brokers)
            results = {name: Measured() for name in contenders}
            for number in range(arguments.rounds):
                names = list(contenders)
                random.shuffle(names)
                for name in names:
                    measure(server, name, contenders[name], inputs, results[name])
                    print(f"round {number + 1}: {name}: {results[name].rates[-1]:,.0f} rows/s", file=sys.stderr)
    print_table(results, server, arguments)


if __name__ == "__main__":
    main()
