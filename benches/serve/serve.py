#!/usr/bin/env python3
"""Compares simusage's answers with other ways of giving them.

Two requests, for random SIM cards and organizations: the daily series of a SIM card over a month, and the hourly series
of an organization over a month, a page of 50. Each round asks everybody with each number of connections, in an order
that is shuffled anew, so that a machine whose speed drifts hurts all alike. The figures are the medians of the rounds,
and next to them the median of the ratios to pgbench, which runs simusage's own statement on the same server. Before
anything is timed, all give the same answers, to the byte, or there are no figures.

    pip install -r requirements.txt
    npm --prefix node ci
    apt-get install wrk
    cargo build --release
    ./serve.py --server postgresql://postgres@127.0.0.1/postgres

--growth has simusage read the same SIM cards and days among more and more records, --mixed asks it while an ingest goes
on.

The server must be on this machine. It is asked for nothing but databases to make and to drop, all of them named
simusage_bench_serve….
"""

import argparse
import os
import platform
import random
import sys

import bench
from bench import QUESTIONS, Server, median
from growth import measure_growth
from mixed import measure_mixed

DATABASE = "simusage_bench_serve"
REFERENCE = "`pgbench -M prepared`, the same statement"
CONDITIONAL = "simusage, `If-None-Match`: 304"
SIMUSAGE = "simusage"
READING = "simusage, `settled_mb = 0`"
REPLACED = "FastAPI + psycopg2 over raw records (replaced)"
SERVICES = {
    SIMUSAGE: bench.simusage,
    READING: bench.simusage_without_memory,
    "FastAPI + asyncpg on the aggregates, 2 workers": bench.tuned,
    "Fastify + pg on the aggregates, 2 processes": bench.node,
    REPLACED: bench.replaced,
}


def check(server, services):
    """All give the same answers, to the byte."""
    for question in QUESTIONS:
        for subject in random.sample(question.subjects, 5):
            answers = {}
            for name, service in services.items():
                status, answer, _ = service.get(question.path(subject))
                items = [(item["date"], item["bytes-used-total"], item["records"]) for item in answer["items"]]
                answers[name] = (status, answer["total"], answer["bytes-used-total"], items)
            rows = server.execute(DATABASE, question.statement(f"'{subject}'"), options=bench.SESSION)
            items = [(f"{bench.FIRST_DAY + question.step * (row[-3] - 1):%FT%TZ}", *row[-2:]) for row in rows[: bench.PAGE]]
            answers[REFERENCE] = (200, *rows[0][:2], items)
            if any(answer != answers[REFERENCE] for answer in answers.values()):
                sys.exit(f"the answers differ: {answers}")


def tags_of(service, question):
    """The tag of each answer; with it, each is a 304."""
    tags = {subject: service.get(question.path(subject))[2] for subject in question.subjects}
    for subject, tag in tags.items():
        if service.get(question.path(subject), tag)[0] != 304:
            sys.exit(f"{question.path(subject)} is no 304")
    return tags


def measure_rounds(server, services, arguments):
    """Runs the rounds; answers what each way has shown, by question and connections."""
    asking = {
        name: lambda *cell, service=service: bench.wrk(service, *cell, arguments.seconds) for name, service in services.items()
    }

    def ask_replaced(*cell):
        # It answers a few times a second, so it gets the time for some answers; and it goes on with those that nobody
        # waits for any more, so it is started anew.
        service = bench.replaced(server, DATABASE, 18005)
        try:
            return bench.wrk(service, *cell, 4 * arguments.seconds)
        finally:
            service.stop()

    asking[REPLACED] = ask_replaced
    for question in QUESTIONS:
        for name, service in services.items():
            if name != REPLACED:
                bench.wrk(service, question, max(arguments.connections), 2)
    tags = {question: tags_of(services[SIMUSAGE], question) for question in QUESTIONS}
    asking[CONDITIONAL] = lambda question, connections: bench.wrk(
        services[SIMUSAGE], question, connections, arguments.seconds, tags[question]
    )
    asking[REFERENCE] = lambda question, connections: bench.pgbench(
        server, DATABASE, question, connections, arguments.seconds
    )
    results = {}
    for number in range(arguments.rounds):
        for question in QUESTIONS:
            for connections in arguments.connections:
                names = list(asking)
                random.shuffle(names)
                for name in names:
                    measured = asking[name](question, connections)
                    results.setdefault((question, connections), {}).setdefault(name, []).append(measured)
                    print(f"round {number + 1}, load {bench.load()}: {question.name}, {connections} connections: {name}: "
                          f"{measured.rate:,.1f}/s, p50 {measured.p50:.2f} ms, p99 {measured.p99:.2f} ms", file=sys.stderr)
    return results


def print_tables(results, memory, server, arguments):
    """Prints the tables that the README shows."""
    version = server.execute(None, "select current_setting('server_version')")[0][0]
    print(f"\n{arguments.records:,} records of {bench.SIM_CARDS:,} SIM cards, {arguments.rounds} rounds of {arguments.seconds} s; "
          f"PostgreSQL {version}, {os.cpu_count()} cores of {platform.machine()}; load at the end {bench.load()}\n")
    print("| request | connections | way | requests/s | ratio to pgbench | p50 ms | p99 ms |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    order = [REFERENCE, CONDITIONAL, *SERVICES]
    for (question, connections), ways in results.items():
        for name in sorted(ways, key=order.index):
            ratio = median(mine.rate / theirs.rate for mine, theirs in zip(ways[name], ways[REFERENCE]))
            rate, p50, p99 = (median(getattr(run, field) for run in ways[name]) for field in ("rate", "p50", "p99"))
            print(f"| {question.name} | {connections} | {name} | {rate:,.{0 if rate > 100 else 1}f} | {ratio:.3g} "
                  f"| {p50:.3g} | {p99:.3g} |")
    print("\n| way | peak memory, MB |\n| --- | ---: |")
    for name, megabytes in memory.items():
        print(f"| {name} | {megabytes:.0f} |")


def compare(server, arguments):
    """Fills a database and measures all ways on it."""
    server.fill(DATABASE, arguments.records)
    services = {}
    try:
        for name, start in SERVICES.items():
            services[name] = start(server, DATABASE)
        check(server, services)
        results = measure_rounds(server, services, arguments)
        memory = {name: service.peak_memory() for name, service in services.items()}
        print_tables(results, memory, server, arguments)
    finally:
        for service in services.values():
            service.stop()
        server.drop(DATABASE)


def main():
    """Reads the options, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="URL of a server on this machine, as a superuser")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="how long each way is asked in each cell of a round")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--growth", type=int, nargs="+", metavar="RECORDS",
                        help="latency among so many records instead, ex: 1000000 10000000 100000000")
    parser.add_argument("--mixed", type=int, metavar="SECONDS", help="answers during an ingest that lasts so long instead")
    arguments = parser.parse_args()
    server = Server(arguments.server)
    if arguments.growth:
        measure_growth(server, arguments)
    elif arguments.mixed:
        measure_mixed(server, arguments)
    else:
        compare(server, arguments)


if __name__ == "__main__":
    main()
