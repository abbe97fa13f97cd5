#!/usr/bin/env python3
"""Compares simusage's ingest with other methods of loading the same records into TimescaleDB.

Each round runs every contender once, in random order and each into a new database, so that changes in the machine's
speed affect all of them alike. The results are medians over the rounds, together with the median of each round's ratio
to `psql \\copy`. After every run, the number of rows and the sum of bytes are checked; a wrong result stops the
benchmark.

    pip install -r requirements.txt
    cargo build --release
    ./ingest.py --server postgresql://postgres@127.0.0.1/postgres --records 2000000 --rounds 5

simusage Kafka reads from a broker that serves the records from memory (benches/ingest/broker.py), one message per record
in two partitions. With --kafka, the topic simusage-bench of a real broker is recreated and filled once instead. Every
round reads the whole topic, because each database has its own ledger.

The server must run on this machine, because one contender makes it read a file. The benchmark only creates and drops
databases named simusage_bench_….
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
BROKER = PROJECT / "benches/ingest/broker.py"
INSERTED_ROWS = 20_000
"""The number of rows to insert one by one: enough to measure a rate in a short time."""

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
    """The same records in each format that a contender reads."""

    folder: Path
    records: int
    bytes: int
    inventory: Path
    ndjson: Path
    csv: Path
    text_keys: Path
    """CSV with the columns of the bare hypertable: time, SIM card, organization, bytes."""


@dataclass
class Measurements:
    """The measurements of a contender, one per round."""

    rates: list = field(default_factory=list)
    """Rows stored per second."""
    with_aggregates: list = field(default_factory=list)
    """Rows per second including the closing of periods, which refreshes the aggregates; empty without aggregates."""
    cpu: list = field(default_factory=list)
    """Client CPU seconds per million rows."""
    wal: list = field(default_factory=list)
    """Write-ahead log bytes per row."""


class Server:
    """The server under test and its databases."""

    def __init__(self, url, direct_compress):
        self.url = url
        self.options = "-c timescaledb.enable_direct_compress_copy=on" if direct_compress else ""

    def of(self, database):
        """The URL of a database."""
        base, _, parameters = self.url.partition("?")
        return base.rsplit("/", 1)[0] + "/" + database + ("?" + parameters if parameters else "")

    def execute(self, database, *statements):
        """Runs statements in autocommit mode. Returns the first row of the last one."""
        connection = psycopg2.connect(self.of(database) if database else self.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
        connection.close()
        return row

    def environment(self, database):
        """The environment of a client process."""
        return {**os.environ, "DATABASE_URL": self.of(database), "PGOPTIONS": self.options}


def run(*command, **arguments):
    """Runs a program and waits for it."""
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
    # The server reads this file itself, as another user.
    folder.chmod(0o755)
    return Inputs(folder, records, total, inventory, paths["ndjson"], paths["csv"], text_keys)


def closing_seconds(server, database, *arguments):
    """Runs simusage ingest. Returns the time it spent only on closing periods at the end."""
    output = subprocess.run([SIMUSAGE, "ingest", "--json", *arguments], check=True, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, env=server.environment(database)).stdout
    return json.loads(output)["refresh-ms"] / 1000


def simusage(path):
    """simusage, including the refresh of its aggregates. Large batches always go to the columnstore."""

    def prepare(server, database, inputs):
        env = server.environment(database)
        run(SIMUSAGE, "migrate", env=env)
        run(SIMUSAGE, "ingest", "--inventory", inputs.inventory, env=env)

    def measure(server, database, inputs):
        return inputs.records, closing_seconds(server, database, getattr(inputs, path))

    return prepare, measure, "all_usage_records"


def simusage_kafka(brokers):
    """simusage reading the same records from Kafka, one message per record."""
    prepare, _, table = simusage("ndjson")

    def measure(server, database, inputs):
        arguments = ["--kafka", brokers, "--topic", TOPIC, "--group", "simusage-bench", "--until-end"]
        return inputs.records, closing_seconds(server, database, *arguments)

    return prepare, measure, table


@contextlib.contextmanager
def broker_in_memory(path):
    """Starts a broker that serves each line of a file as a message. Yields its address."""
    command = [sys.executable, BROKER, path, "--topic", TOPIC, "--partitions", str(PARTITIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        try:
            # It prints its address once it has read the file.
            yield broker.stdout.readline().strip() or sys.exit("the broker exited before it was ready")
        finally:
            broker.terminate()


@contextlib.contextmanager
def broker_at(brokers, path):
    """Sends each line of a file as a message to a real broker. Yields its address."""
    fill_topic(brokers, path)
    yield brokers


def fill_topic(brokers, path):
    """Recreates the topic and sends each line of a file as a message."""
    admin = AdminClient({"bootstrap.servers": brokers})
    for future in admin.delete_topics([TOPIC]).values():
        try:
            future.result()
        except Exception as error:  # The topic does not exist yet.
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
    """Creates the bare hypertable with text keys."""

    def prepare(server, database, _inputs):
        server.execute(database, BARE, *([BARE_COLUMNSTORE] if columnstore else []))

    return prepare


def psql_copy(server, database, inputs):
    """psql reads the file and streams it to the server."""
    copy = rf"\copy usage from '{inputs.text_keys}' csv"
    run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", server.of(database), "-c", copy, env=server.environment(database))
    return inputs.records, None


def server_copy(server, database, inputs):
    """The server reads a file of binary tuples: an upper bound, without client, network or parsing."""
    binary = inputs.folder / "usage.binary"
    run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", server.of(database), "-c", f"copy usage from '{binary}' (format binary)",
        env=server.environment(database))
    return inputs.records, None


def row_inserts(server, database, inputs):
    """The method of the system that simusage replaces: one INSERT per row, a commit every 200 rows."""
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
    """timescaledb-parallel-copy with one worker per core."""

    def measure(server, database, inputs):
        run(binary, "--connection", server.of(database), "--table", "usage", "--file", inputs.text_keys,
            "--workers", os.cpu_count(), env=server.environment(database))
        return inputs.records, None

    return measure


def make_binary(server, inputs):
    """Writes the binary file for the server-side COPY."""
    database = "simusage_bench_binary"
    server.execute(None, f"drop database if exists {database}", f"create database {database}")
    server.execute(database, "create table usage (time timestamptz, sim_card text, organization text, bytes bigint)")
    run("psql", "-q", "-d", server.of(database), "-c", rf"\copy usage from '{inputs.text_keys}' csv")
    binary = inputs.folder / "usage.binary"
    run("psql", "-q", "-d", server.of(database), "-c", rf"\copy usage to '{binary}' (format binary)")
    binary.chmod(0o644)
    server.execute(None, f"drop database {database}")


def measure(server, name, contender, inputs, measurements):
    """Runs a contender once and checks the records stored."""
    prepare, ingest, table = contender
    database = "simusage_bench_run"
    server.execute(None, f"drop database if exists {database} with (force)", f"create database {database}")
    try:
        prepare(server, database, inputs)
        server.execute(database, "checkpoint")
        wal = server.execute(database, "select pg_current_wal_insert_lsn()")[0]
        cpu = cpu_seconds()
        started = time.perf_counter()
        rows, closing = ingest(server, database, inputs)
        elapsed = time.perf_counter() - started
        cpu = cpu_seconds() - cpu
        wal = server.execute(database, f"select pg_current_wal_insert_lsn() - '{wal}'")[0]
        stored = server.execute(database, f"select count(*), sum(bytes)::bigint from {table}")
        if rows == inputs.records and stored != (inputs.records, inputs.bytes):
            sys.exit(f"{name} stored {stored}, expected {(inputs.records, inputs.bytes)}")
        if stored[0] != rows:
            sys.exit(f"{name} stored {stored[0]} rows, expected {rows}")
    finally:
        server.execute(None, f"drop database {database} with (force)")
    measurements.rates.append(rows / (elapsed - (closing or 0)))
    if closing is not None:
        measurements.with_aggregates.append(rows / elapsed)
    measurements.cpu.append(cpu / rows * 1e6)
    measurements.wal.append(float(wal) / rows)


def cpu_seconds():
    """The CPU time of this process and its finished children, so a running broker does not count. This process only
    waits, except in the contenders in which it is the client."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def print_table(results, server, arguments):
    """Prints the table for docs/benchmarks.md."""
    version = server.execute(None, "select current_setting('server_version')")[0]
    storage = "bare hypertables with direct compress" if server.options else "bare hypertables in the row store"
    print(f"\n{arguments.records:,} records of {arguments.sim_cards:,} SIM cards, {arguments.rounds} rounds, {storage}; "
          f"PostgreSQL {version}, {os.cpu_count()} cores of {platform.machine()}\n")
    print("| method | rows/s stored | ratio to psql | rows/s with aggregates | client CPU s per million | WAL bytes per row |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    reference = results["psql \\copy CSV, text keys"].rates
    for name, measurements in results.items():
        ratios = [rate / base for rate, base in zip(measurements.rates, reference)]
        total = f"{statistics.median(measurements.with_aggregates):,.0f}" if measurements.with_aggregates else ""
        print(f"| {name} | {statistics.median(measurements.rates):,.0f} | {statistics.median(ratios):.3g} | {total} "
              f"| {statistics.median(measurements.cpu):.2f} | {statistics.median(measurements.wal):.0f} |")


def main():
    """Parses the options, runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="URL of a server on this machine, as a superuser")
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--sim-cards", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--direct-compress", action="store_true", help="let the bare hypertables receive their rows in the columnstore, too")
    parser.add_argument("--kafka", help="address of a real broker; the default is one that serves from memory")
    parser.add_argument("--parallel-copy", help="path of timescaledb-parallel-copy, to include it")
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
            results = {name: Measurements() for name in contenders}
            for number in range(arguments.rounds):
                names = list(contenders)
                random.shuffle(names)
                for name in names:
                    measure(server, name, contenders[name], inputs, results[name])
                    print(f"round {number + 1}: {name}: {results[name].rates[-1]:,.0f} rows/s", file=sys.stderr)
    print_table(results, server, arguments)


if __name__ == "__main__":
    main()
