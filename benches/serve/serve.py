#!/usr/bin/env python3
"""Compares simusage's API with other implementations of the same requests.

There are two workloads, for random SIM cards and organizations: the daily series of a SIM card over a month, and the
hourly series of an organization over a month, in pages of 50. Each round measures every method with every number of
connections, in random order, so that changes in the machine's speed affect all of them alike. The results are medians
over the rounds, together with the median of each round's ratio to pgbench, which runs simusage's statement on the same
server. Before measuring, all methods must return the same responses, to the byte.

    pip install -r requirements.txt
    npm --prefix node ci
    apt-get install wrk
    cargo build --release
    ./serve.py --server postgresql://postgres@127.0.0.1/postgres

--growth measures the same requests with increasing numbers of stored records, and --mixed measures them during an
ingest.

The server must run on this machine. The benchmark only creates and drops databases named simusage_bench_serve….
"""

import argparse
import os
import platform
import random
import sys

import bench
from bench import WORKLOADS, Server, median
from growth import measure_growth
from mixed import measure_mixed

DATABASE = "simusage_bench_serve"
REFERENCE = "`pgbench -M prepared`, the same statement"
CONDITIONAL = "simusage, `If-None-Match`: 304"
SIMUSAGE = "simusage"
UNCACHED = "simusage, `cache_mb = 0`"
REPLACED = "FastAPI + psycopg2 over raw records (replaced)"
SERVICES = {
    SIMUSAGE: bench.simusage,
    UNCACHED: bench.simusage_uncached,
    "FastAPI + asyncpg on the aggregates, 2 workers": bench.tuned,
    "Fastify + pg on the aggregates, 2 processes": bench.node,
    REPLACED: bench.replaced,
}


def check(server, services):
    """Exits unless all services and the statement return the same results."""
    for workload in WORKLOADS:
        for subject in random.sample(workload.subjects, 5):
            answers = {}
            for name, service in services.items():
                status, answer, _ = service.get(workload.path(subject))
                items = [(item["date"], item["bytes-used-total"], item["records"]) for item in answer["items"]]
                answers[name] = (status, answer["total"], answer["bytes-used-total"], items)
            rows = server.execute(DATABASE, workload.statement(f"'{subject}'"), options=bench.SESSION)
            items = [(f"{bench.FIRST_DAY + workload.step * (row[-3] - 1):%FT%TZ}", *row[-2:]) for row in rows[: bench.PAGE]]
            answers[REFERENCE] = (200, *rows[0][:2], items)
            if any(answer != answers[REFERENCE] for answer in answers.values()):
                sys.exit(f"the responses differ: {answers}")


def tags_of(service, workload):
    """Returns the ETag of each response. Exits unless each conditional request returns 304."""
    tags = {subject: service.get(workload.path(subject))[2] for subject in workload.subjects}
    for subject, tag in tags.items():
        if service.get(workload.path(subject), tag)[0] != 304:
            sys.exit(f"{workload.path(subject)} with If-None-Match did not return 304")
    return tags


def measure_rounds(server, services, arguments):
    """Runs the rounds. Returns the measurements of each method by workload and connections."""
    methods = {
        name: lambda *cell, service=service: bench.wrk(service, *cell, arguments.seconds) for name, service in services.items()
    }

    def measure_replaced(*cell):
        # It serves only a few requests per second, so it gets more time. It is restarted each time, because it would
        # otherwise continue with abandoned requests of the previous run.
        service = bench.replaced(server, DATABASE, 18005)
        try:
            return bench.wrk(service, *cell, 4 * arguments.seconds)
        finally:
            service.stop()

    methods[REPLACED] = measure_replaced
    for workload in WORKLOADS:
        for name, service in services.items():
            if name != REPLACED:
                bench.wrk(service, workload, max(arguments.connections), 2)
    tags = {workload: tags_of(services[SIMUSAGE], workload) for workload in WORKLOADS}
    methods[CONDITIONAL] = lambda workload, connections: bench.wrk(
        services[SIMUSAGE], workload, connections, arguments.seconds, tags[workload]
    )
    methods[REFERENCE] = lambda workload, connections: bench.pgbench(
        server, DATABASE, workload, connections, arguments.seconds
    )
    results = {}
    for number in range(arguments.rounds):
        for workload in WORKLOADS:
            for connections in arguments.connections:
                names = list(methods)
                random.shuffle(names)
                for name in names:
                    run = methods[name](workload, connections)
                    results.setdefault((workload, connections), {}).setdefault(name, []).append(run)
                    print(f"round {number + 1}, load {bench.load()}: {workload.name}, {connections} connections: {name}: "
                          f"{run.rate:,.1f}/s, p50 {run.p50:.2f} ms, p99 {run.p99:.2f} ms", file=sys.stderr)
    return results


def print_tables(results, memory, server, arguments):
    """Prints the tables for docs/benchmarks.md."""
    version = server.execute(None, "select current_setting('server_version')")[0][0]
    print(f"\n{arguments.records:,} records of {bench.SIM_CARDS:,} SIM cards, {arguments.rounds} rounds of {arguments.seconds} s; "
          f"PostgreSQL {version}, {os.cpu_count()} cores of {platform.machine()}; load at the end {bench.load()}\n")
    print("| request | connections | method | requests/s | ratio to pgbench | p50 ms | p99 ms |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    order = [REFERENCE, CONDITIONAL, *SERVICES]
    for (workload, connections), runs in results.items():
        for name in sorted(runs, key=order.index):
            ratio = median(run.rate / base.rate for run, base in zip(runs[name], runs[REFERENCE]))
            rate, p50, p99 = (median(getattr(run, field) for run in runs[name]) for field in ("rate", "p50", "p99"))
            print(f"| {workload.name} | {connections} | {name} | {rate:,.{0 if rate > 100 else 1}f} | {ratio:.3g} "
                  f"| {p50:.3g} | {p99:.3g} |")
    print("\n| method | peak memory, MB |\n| --- | ---: |")
    for name, megabytes in memory.items():
        print(f"| {name} | {megabytes:.0f} |")


def compare(server, arguments):
    """Fills a database and measures all methods on it."""
    server.fill(DATABASE, arguments.records)
    server.fill_contenders(DATABASE)
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
    """Parses the options and runs the selected benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="URL of a server on this machine, as a superuser")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="duration of each measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--growth", type=int, nargs="+", metavar="RECORDS",
                        help="measure latency with these numbers of records instead (ex: 1000000 10000000 100000000)")
    parser.add_argument("--mixed", type=int, metavar="SECONDS", help="check responses during an ingest of this duration instead")
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
