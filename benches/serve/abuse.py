#!/usr/bin/env python3
"""Attacks `simusage serve` while honest clients use it, and watches its memory.

    pip install psycopg2-binary
    cargo build --release
    ./abuse.py --server postgresql://postgres@127.0.0.1/postgres
    ./abuse.py --server URL --seconds 60 --simusage ../../target/debug/simusage     # a quick check

Honest tenants request series, lists and their inventory, and check each sum; an ingest stores records meanwhile.
Attackers, with tokens of their own or none, send what docs/security.md lists. The exit status is 1 if an honest client
got anything but 200, 304 and right sums, if its 99th percentile is above three times the undisturbed one (and above
--allowance-ms), or if memory grew or exceeded --max-memory-mb.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import bench

DATABASE = "simusage_bench_abuse"
PORT = 18050
HONEST = 4
ATTACKERS = 2
UNDISTURBED_SECONDS = 30
SAMPLE_SECONDS = 10
DAYS = f"start={bench.FIRST_DAY:%F}&end={bench.FIRST_DAY + timedelta(days=bench.DAYS - 1):%F}"


def token(server, name, number):
    """Creates a token that is bound to the organization with this number."""
    command = [bench.SIMUSAGE, "token", "create", name, "--organization", bench.organization(number)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment(server)).stdout.strip()


def environment(server):
    """The environment of simusage, with the default settings."""
    return {**os.environ, "SIMUSAGE_LOG": "error", "DATABASE_URL": server.of(DATABASE)}


def memory(pid):
    """The resident memory of a process, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def honest_paths(number):
    """What an honest tenant requests; each answer has the same total."""
    name = bench.organization(number)
    return [f"/api/v1/organization/{name}/usage?{DAYS}&every=1day", f"/api/v1/organization/{name}/usage?{DAYS}&every=1hour",
            f"/api/v1/usage/simcards?{DAYS}", f"/api/v1/usage/organizations?{DAYS}", "/api/v1/inventory?size=20"]


def honest_client(number, bearer, deadline, latencies, wrong):
    """Sends requests until the deadline, with and without the tags of earlier responses."""
    connection, tags, expected = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60), {}, None
    while time.monotonic() < deadline:
        path = random.choice(honest_paths(number))
        headers = {"Authorization": f"Bearer {bearer}"}
        if path in tags and random.random() < 0.5:
            headers["If-None-Match"] = tags[path]
        started = time.monotonic()
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            # The server may close a connection that was idle; one that it has just accepted, it may not.
            if connection.sock is None or not isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
                wrong.append(f"{path}: {error!r}")
            connection.close()
            continue
        latencies.append(time.monotonic() - started)
        if response.status == 200:
            tags[path] = response.headers["ETag"]
            total = json.loads(body).get("bytes-used-total")
            if total is not None:
                expected = expected or total
                if total != expected:
                    wrong.append(f"{path}: {total} instead of {expected}")
        elif response.status != 304:
            wrong.append(f"{path}: {response.status} {body[:200]}")
        time.sleep(0.02)


def honest_clients(tokens, seconds, results):
    """All honest clients, in a process of their own. Puts their latencies and what was wrong into the queue."""
    deadline, latencies, wrong = time.monotonic() + seconds, [], []
    arguments = [(number, bearer, deadline, latencies, wrong) for number, bearer in enumerate(tokens)]
    run_threads(honest_client, arguments)
    results.put((latencies, wrong))


def run_threads(target, arguments):
    """Runs a function in a thread for each list of arguments."""
    threads = [threading.Thread(target=target, args=each, daemon=True) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def connect(source="127.0.0.1"):
    """A connection from an address of this machine."""
    connection = socket.create_connection(("127.0.0.1", PORT), timeout=10, source_address=(source, 0))
    connection.settimeout(10)
    return connection


def send(path, bearer=None, head="", source="127.0.0.1"):
    """Sends a request, and returns the connection without reading the response."""
    connection = connect(source)
    authorization = f"authorization: Bearer {bearer}\r\n" if bearer else ""
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{authorization}{head}\r\n".encode())
    return connection


def read(connection):
    """Reads a response to its end, and returns its size."""
    with connection:
        size = 0
        while part := connection.recv(65536):
            size += len(part)
        return size


def hold(connections, seconds):
    """Keeps connections open without reading, then closes them."""
    time.sleep(seconds)
    for connection in connections:
        connection.close()


def many_buckets(name, bearer):
    start = random.randrange(1900, 2050)
    tz = random.choice(("UTC", "Europe/Berlin", "Asia/Kathmandu"))
    years = random.choice((1, 10, 100))
    path = f"/api/v1/organization/{name}/usage?start={start}-01-01&end={start + years}-12-31&every=1hour&size=1&tz={tz}"
    for connection in [send(path, bearer) for _ in range(10)]:
        read(connection)


def exports_not_read(name, bearer):
    paths = ["/api/v1/inventory?format=csv", f"/api/v1/usage/simcards?{DAYS}&format=ndjson",
             f"/api/v1/organization/{name}/usage?start=2015-01-01&end=2025-12-31&every=1hour&fill=zero&format=csv"]
    hold([send(random.choice(paths), bearer) for _ in range(16)], random.uniform(0, 15))


def exports(name, bearer):
    read(send(f"/api/v1/organization/{name}/usage?start=2015-01-01&end=2025-12-31&every=1hour&fill=zero&format=ndjson", bearer))
    read(send("/api/v1/inventory?format=csv", bearer))


def large_pages(name, bearer):
    """Pages of 1,000 rows of intervals that differ, which fill the cache."""
    day = bench.FIRST_DAY + timedelta(minutes=random.randrange(20 * 1440))
    path = f"/api/v1/organization/{name}/usage?start={day:%FT%T}Z&end=2020-04-30&every=1hour&fill=zero&size=1000"
    encoding = random.choice(("", "accept-encoding: gzip\r\n"))
    for connection in [send(path, bearer, encoding) for _ in range(4)]:
        read(connection)


def flood(name, bearer):
    for connection in [send(f"/api/v1/inventory?q=89{random.randrange(99)}", bearer) for _ in range(64)]:
        read(connection)
    for connection in [send("/api/v1/usage/simcards?sort=id&size=1000", bearer) for _ in range(64)]:
        read(connection)


def resets(name, bearer):
    """Requests whose connection is reset while the query runs; no page of theirs is cached."""
    second = random.randrange(86_400)
    day = bench.FIRST_DAY + timedelta(seconds=second)
    for path in (f"/api/v1/usage/simcards?start={day:%FT%T}Z&end=2020-02-28T12:00:00Z&size=1000",
                 f"/api/v1/organization/{name}/usage?start={day:%FT%T}Z&end=2020-02-28T12:00:00Z&every=1hour&format=csv"):
        connection = send(path, bearer)
        time.sleep(random.uniform(0, 0.05))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def idle_connections(*_):
    held = []
    for _ in range(400):
        try:
            held.append(connect("127.0.0.2"))
        except OSError:
            break
    hold(held, random.uniform(0, 8))


def files_not_read(*_):
    hold([send("/docs/swagger-ui-bundle.js", source="127.0.0.3") for _ in range(100)], random.uniform(0, 8))


def probes(*_):
    for path in ("/readyz", "/livez", "/metrics", "/", "/docs/", "/openapi.json") * 30:
        read(send(path, source="127.0.0.4"))


def mistakes(_, bearer):
    """Guessed tokens, paths, cursors and parameters, and requests that are too large, malformed or incomplete."""
    guess = f"simusage_{random.getrandbits(256):064x}"
    requests = [("/api/v1/inventory", guess, ""), (f"/api/v1/organization/{random.random()}/usage?every=x", bearer, ""),
                (f"/api/v1/inventory?cursor={random.getrandbits(400):x}", bearer, ""), ("/api/v1/inventory?q=%00", bearer, ""),
                ("/" + "x" * random.randrange(20_000), None, ""), ("/", None, f"x: {'y' * random.randrange(100_000)}\r\n"),
                ("/api/v1/inventory", bearer, f"content-length: {random.randrange(10**9)}\r\n")]
    for path, sent, head in requests:
        try:
            read(send(path, sent, head, "127.0.0.5"))
        except OSError:
            pass
    slow = [connect("127.0.0.5") for _ in range(20)]
    for connection in slow:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: ")
    garbage = connect("127.0.0.5")
    garbage.sendall(random.randbytes(2_000))
    hold([*slow, garbage], random.uniform(0, 6))


ATTACKS = (many_buckets, exports_not_read, exports, large_pages, flood, resets, idle_connections, files_not_read, probes, mistakes)


def attacker(attack, number, bearer, deadline, counts):
    """Repeats an attack until the deadline."""
    while time.monotonic() < deadline:
        try:
            attack(bench.organization(number), bearer)
            counts[attack.__name__] = counts.get(attack.__name__, 0) + 1
        except OSError:
            # The server closes what exceeds its limits.
            counts["refused"] = counts.get("refused", 0) + 1
        time.sleep(random.uniform(0, 0.3))


def attackers(tokens, attacks, seconds, results):
    """All attackers, in a process of their own. Puts how often each attack was completed into the queue."""
    deadline, counts = time.monotonic() + seconds, {}
    arguments = [(attack, HONEST + number, bearer, deadline, counts)
                 for attack in ATTACKS if attack.__name__ in attacks for number, bearer in enumerate(tokens)]
    run_threads(attacker, arguments)
    results.put(counts)


def feed(server, seconds, results):
    """Pipes records of March to an ingest, 100 each second."""
    command = [bench.SIMUSAGE, "ingest", "--format", "csv", "--source-id", "abuse", "-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment(server), text=True)
    process.stdin.write("sim-card-id,bytes-used,date\n")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        minute = bench.FIRST_DAY + timedelta(days=bench.DAYS, minutes=random.randrange(28 * 1440))
        process.stdin.writelines(f"{bench.iccid(random.randrange(bench.SIM_CARDS))},1,{minute:%FT%T}Z\n" for _ in range(100))
        process.stdin.flush()
        time.sleep(1)
    process.stdin.close()
    results.put(process.wait())


def percentile(latencies, share):
    """A percentile of latencies, in milliseconds."""
    return sorted(latencies)[int(share * (len(latencies) - 1))] * 1e3


def spawn(target, *arguments):
    """Runs a function in another process, and returns the queue with its result."""
    results = multiprocessing.Queue()
    multiprocessing.Process(target=target, args=(*arguments, results), daemon=True).start()
    return results


def main():
    """Fills the database, runs the phases, and checks what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, metavar="URL", help="the TimescaleDB server; databases are created there")
    parser.add_argument("--seconds", type=int, default=3_600, help="duration of the attacks (default: %(default)s)")
    parser.add_argument("--records", type=int, default=500_000, help="usage records (default: %(default)s)")
    parser.add_argument("--simusage", type=Path, default=bench.SIMUSAGE, help="the program (default: the release build)")
    names = [attack.__name__ for attack in ATTACKS]
    parser.add_argument("--attacks", nargs="+", choices=names, default=names, metavar="ATTACK",
                        help=f"only some of: {', '.join(names)}")
    parser.add_argument("--allowance-ms", type=float, default=250, help="a 99th percentile that is always accepted")
    parser.add_argument("--max-memory-mb", type=float, default=150, help="default: %(default)s")
    arguments = parser.parse_args()
    bench.SIMUSAGE = arguments.simusage.resolve()
    server = bench.Server(arguments.server)
    server.fill(DATABASE, arguments.records)
    honest = [token(server, f"honest-{number}", number) for number in range(HONEST)]
    attacking = [token(server, f"attacker-{number}", HONEST + number) for number in range(ATTACKERS)]
    command = [bench.SIMUSAGE, "serve", "--listen", f"127.0.0.1:{PORT}"]
    service = subprocess.Popen([str(part) for part in command], env=environment(server))
    try:
        failures = run(server, service, honest, attacking, arguments)
    finally:
        service.terminate()
        service.wait()
        server.drop(DATABASE)
    for failure in failures:
        print(f"FAILED: {failure}")
    sys.exit(1 if failures else 0)


def run(server, service, honest, attacking, arguments):
    """Runs both phases. Returns what failed."""
    for _ in range(100):
        try:
            read(send("/livez"))
            break
        except OSError:
            time.sleep(0.1)
    undisturbed, wrong = spawn(honest_clients, honest, UNDISTURBED_SECONDS).get()
    print(f"undisturbed: {len(undisturbed)} honest responses, p50 {percentile(undisturbed, 0.5):.1f} ms, "
          f"p99 {percentile(undisturbed, 0.99):.1f} ms, memory {memory(service.pid):.1f} MB; load {bench.load()}", flush=True)
    results = spawn(honest_clients, honest, arguments.seconds)
    attacks, fed = spawn(attackers, attacking, arguments.attacks, arguments.seconds), spawn(feed, server, arguments.seconds)
    samples, deadline = [], time.monotonic() + arguments.seconds
    while time.monotonic() < deadline and service.poll() is None:
        time.sleep(SAMPLE_SECONDS)
        samples.append(memory(service.pid))
        print(f"{len(samples) * SAMPLE_SECONDS:5} s: {samples[-1]:.1f} MB", flush=True)
    if service.poll() is not None:
        return [f"serve ended with {service.returncode}"]
    disturbed, more_wrong = results.get()
    counts, ingested = attacks.get(), fed.get()
    quarter = max(1, len(samples) // 4)
    early, late = (sum(part) / len(part) for part in (samples[quarter : 2 * quarter] or samples, samples[-quarter:]))
    p99 = percentile(disturbed, 0.99)
    print(f"attacked: {len(disturbed)} honest responses, p50 {percentile(disturbed, 0.5):.1f} ms, p99 {p99:.1f} ms; "
          f"attacks {counts}; memory {early:.1f} MB in the second quarter, {late:.1f} MB in the last, "
          f"{max(samples):.1f} MB at most; load {bench.load()}", flush=True)
    failures = [*wrong, *more_wrong][:20]
    if ingested:
        failures.append(f"the ingest ended with {ingested}")
    if p99 > max(3 * percentile(undisturbed, 0.99), arguments.allowance_ms):
        failures.append(f"the 99th percentile of honest clients was {p99:.1f} ms")
    if late > early * 1.1 + 2:
        failures.append(f"memory grew from {early:.1f} to {late:.1f} MB")
    if max(samples) > arguments.max_memory_mb:
        failures.append(f"memory reached {max(samples):.1f} MB")
    return failures


if __name__ == "__main__":
    main()
