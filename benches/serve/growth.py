"""Measures how latency grows with the number of stored records, without the cache of answers."""

import random
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import bench
from bench import WORKLOADS, median

DATABASE = "simusage_bench_serve_growth_{}"
PER_HOUR = 60
"""Records per SIM card on each day before the month, all within one hour."""

SHARE_OF_MONTH = 0.2
"""The share of the added records that are dated within the requested month."""

BATCHES_OF_A_PERIOD = 20
"""A period must have fewer than 2^25 records; a batch of 100 million has 714,000."""

OLDER_DAY = f"""
select %s::bigint, timestamptz %s + (sim_card_id %% 24) * interval '1 hour' + number * interval '{3600 // PER_HOUR} second',
    sim_card_id, organization_id, 1000 + number
from generate_series(0, {PER_HOUR - 1}) as number
cross join sim_card_assignments
"""
MONTH_DAY = """
select %s::bigint, timestamptz %s + (sim_card_id %% 24) * interval '1 hour' + number * (interval '1 hour' / %s),
    sim_card_id, organization_id, 1000 + number
from generate_series(0, %s - 1) as number
cross join sim_card_assignments
where iccid like '8945%%'
"""


def add(server, database, more):
    """Adds records that do not change the requested usage: SHARE_OF_MONTH of them in the same month for other SIM cards
    of other organizations, and the rest before the month for all SIM cards. An SQL statement generates them on the
    server, which is faster than ingesting; simusage then closes their periods."""
    with tempfile.TemporaryDirectory() as folder:
        inventory, nothing = Path(folder) / "inventory.csv", Path(folder) / "nothing.ndjson"
        others = (f"8945{number:015},other{number % bench.ORGANIZATIONS:05}" for number in range(bench.SIM_CARDS))
        inventory.write_text("\n".join(["sim-card-id,org-id", *others, ""]))
        server.simusage(database, "ingest", "--inventory", inventory)
        per_day = round(more * SHARE_OF_MONTH / bench.DAYS / bench.SIM_CARDS)
        older_days = round(more * (1 - SHARE_OF_MONTH) / PER_HOUR / (2 * bench.SIM_CARDS))
        first = bench.FIRST_DAY - timedelta(days=older_days)
        batches = [(OLDER_DAY, first + timedelta(days=number)) for number in range(older_days)]
        month = (bench.FIRST_DAY + timedelta(days=number) for number in range(bench.DAYS))
        batches += [(MONTH_DAY, day, per_day, per_day) for day in month]
        for number, batch in enumerate(batches, 1):
            post(server, database, *batch)
            if number % BATCHES_OF_A_PERIOD == 0:
                server.execute(database, "select end_period()")
        nothing.touch()
        server.simusage(database, "ingest", nothing)
    server.execute(database, "vacuum analyze", "checkpoint")


def post(server, database, records, day, *values):
    """Stores the records of one day as one batch."""
    settings = "-c TimeZone=UTC -c timescaledb.enable_direct_compress_insert=on"
    connection = bench.psycopg2.connect(server.of(database), options=settings)
    with connection, connection.cursor() as cursor:
        cursor.execute("select begin_posting()")
        posting, = cursor.fetchone()
        insert = f"insert into usage_records (posting, time, sim_card_id, organization_id, bytes) {records} order by 3, 2"
        cursor.execute(insert, (posting, f"{day:%F}", *values))
        add_day = """insert into posting_days (day, posting, records, is_large, is_recent)
                     values (%s, %s, %s, false, false)"""
        cursor.execute(add_day, (f"{day:%F}", posting, cursor.rowcount))
    connection.close()


def measure_growth(server, arguments):
    """Fills a database for each number of records and sends the same requests to each, in rounds."""
    services = {}
    try:
        for number, records in enumerate(arguments.growth):
            database = DATABASE.format(records)
            server.fill(database, min(records, arguments.records))
            if records > arguments.records:
                add(server, database, records - arguments.records)
            stored, = server.execute(database, "select count(*) from all_usage_records")[0]
            size, = server.execute(database, "select pg_size_pretty(pg_database_size(current_database()))")[0]
            print(f"{database}: {stored:,} records, {size}", file=sys.stderr)
            services[records] = bench.simusage_uncached(server, database, 18010 + number)
        check(services)
        results = measure_rounds(services, arguments)
    finally:
        for service in services.values():
            service.stop()
        for records in arguments.growth:
            server.drop(DATABASE.format(records))
    print_table(results, arguments)


def check(services):
    """Exits unless all services return the same responses."""
    for workload in WORKLOADS:
        for subject in random.sample(workload.subjects, 10):
            answers = []
            for service in services.values():
                answer = service.get(workload.path(subject))[1]
                answers.append((answer["items"], answer["total"], answer["bytes-used-total"]))
            if answers.count(answers[0]) != len(answers):
                sys.exit(f"the responses differ: {answers}")


def measure_rounds(services, arguments):
    """Runs the rounds in random order. Returns the measurements by workload, connections and records."""
    results = {}
    for number in range(arguments.rounds):
        for workload in WORKLOADS:
            for connections in arguments.connections:
                cell = results.setdefault((workload, connections), {})
                for records in random.sample(list(services), len(services)):
                    measurement = bench.wrk(services[records], workload, connections, arguments.seconds)
                    cell.setdefault(records, []).append(measurement)
                    print(f"round {number + 1}, load {bench.load()}: {workload.name}, {connections} connections, {records:,}: "
                          f"p50 {measurement.p50:.2f} ms", file=sys.stderr)
    return results


def print_table(results, arguments):
    """Prints the table for docs/benchmarks.md."""
    print(f"\nMedian latency, {arguments.rounds} rounds of {arguments.seconds} s; load at the end {bench.load()}\n")
    print("| request | connections | records | p50 ms | ratio to the fewest records |\n| --- | ---: | ---: | ---: | ---: |")
    for (workload, connections), sizes in results.items():
        for records in arguments.growth:
            ratio = median(run.p50 / base.p50 for run, base in zip(sizes[records], sizes[arguments.growth[0]]))
            print(f"| {workload.name} | {connections} | {records:,} | {median(run.p50 for run in sizes[records]):.3g} "
                  f"| {ratio:.3g} |")
