"""Checks that responses stay correct during an ingest."""

import http.client
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import bench
from bench import WORKLOADS

DATABASE = "simusage_bench_serve_mixed"
CLIENTS = 8
RECORDS_PER_SECOND = 5_000
STREAM_DAYS = 28
"""The number of days after the filled month; the streamed records are dated within them."""


class Tally:
    """Counts the responses that the clients received, and their latencies."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {}
        self.latencies = []

    def add(self, result, seconds):
        """Counts a response."""
        with self.lock:
            self.counts[result] = self.counts.get(result, 0) + 1
            self.latencies.append(seconds)


def measure_mixed(server, arguments):
    """Sends requests while simusage ingests a stream. Sums of the filled month must not change, sums of the streamed
    days must not decrease, and at the end they must equal the bytes sent."""
    server.fill(DATABASE, arguments.records)
    service = bench.simusage(server, DATABASE, 18020)
    try:
        with tempfile.TemporaryDirectory() as folder:
            stream, sent = make_stream(server, Path(folder), arguments.mixed)
            expected = {(workload, subject): content(service.get(workload.path(subject))[1])
                        for workload in WORKLOADS for subject in workload.subjects}
            tally, done = Tally(), threading.Event()
            clients = [threading.Thread(target=request_all, args=(service.port, expected, tally, done)) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            started = time.monotonic()
            status = feed(server, stream)
            done.set()
            for client in clients:
                client.join()
            elapsed = time.monotonic() - started
        found = sum(service.get(stream_path(number))[1]["bytes-used-total"] for number in range(bench.ORGANIZATIONS))
        memory = service.peak_memory()
    finally:
        service.stop()
        server.drop(DATABASE)
    tally.latencies.sort()
    print(f"\n{elapsed:.0f} s with an ingest of {RECORDS_PER_SECOND:,} records/s and {CLIENTS} clients: {tally.counts}; "
          f"p50 {tally.latencies[len(tally.latencies) // 2] * 1e3:.2f} ms, "
          f"p99 {tally.latencies[len(tally.latencies) * 99 // 100] * 1e3:.2f} ms, peak memory {memory:.0f} MB; "
          f"ingest exited with {status}; bytes of the stream: {sent:,} sent, {found:,} found; load {bench.load()}")
    if status or found != sent or set(tally.counts) - {"200", "304"}:
        sys.exit("some responses were wrong; see the counts above")


def content(answer):
    """The part of a response that must not change."""
    return answer["items"], answer["total"], answer["bytes-used-total"]


def make_stream(server, folder, seconds):
    """Generates records of the days after the month. Returns their lines and the sum of their bytes."""
    inventory, stream = folder / "inventory.csv", folder / "stream.csv"
    bench.generate(inventory, "inventory", "--sim-cards", bench.SIM_CARDS, "--organizations", bench.ORGANIZATIONS)
    first = bench.FIRST_DAY + timedelta(days=bench.DAYS)
    bench.generate(stream, "usage", "--inventory", inventory, "--records", seconds * RECORDS_PER_SECOND, "--start",
                   f"{first:%F}", "--days", STREAM_DAYS, "--format", "csv", "--seed", "2")
    lines = stream.read_text().splitlines(keepends=True)
    return lines, sum(int(line.split(",")[1]) for line in lines[1:])


def feed(server, lines):
    """Pipes the records to simusage at a fixed rate. Returns its exit status."""
    process = subprocess.Popen([bench.SIMUSAGE, "ingest", "--format", "csv", "--source-id", "bench", "-"],
                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=server.environment(DATABASE), text=True)
    portion = RECORDS_PER_SECOND // 10
    started = time.monotonic()
    for number, begin in enumerate(range(0, len(lines), portion), 1):
        process.stdin.writelines(lines[begin : begin + portion])
        process.stdin.flush()
        time.sleep(max(0, started + number / 10 - time.monotonic()))
    process.stdin.close()
    return process.wait()


def stream_path(number):
    """The path for an organization's usage of the streamed days."""
    first = bench.FIRST_DAY + timedelta(days=bench.DAYS)
    last = first + timedelta(days=STREAM_DAYS - 1)
    return f"/api/v1/organization/{bench.organization(number)}/usage?start={first:%F}&end={last:%F}&every=1hour&size=1"


def request_all(port, expected, tally, done):
    """Requests the filled month, with and without the ETag of an earlier response, and the streamed days."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    keys, tags, sums = list(expected), {}, {}
    while not done.is_set():
        if random.random() < 0.2:
            number = random.randrange(bench.ORGANIZATIONS)
            path, tag = stream_path(number), None
            check = lambda answer: sums.setdefault(path, 0) <= answer["bytes-used-total"]
        else:
            workload, subject = key = random.choice(keys)
            path = workload.path(subject)
            tag = tags.get(path) if random.random() < 0.5 else None
            check = lambda answer: content(answer) == expected[key]
        started = time.monotonic()
        connection.request("GET", path, headers={"If-None-Match": tag} if tag else {})
        response = connection.getresponse()
        body = response.read()
        seconds = time.monotonic() - started
        if response.status == 304 and tag:
            tally.add("304", seconds)
        elif response.status != 200:
            tally.add(f"{response.status} {body[:200]}", seconds)
        elif not check(json.loads(body)):
            tally.add(f"wrong: {path}", seconds)
        else:
            tally.add("200", seconds)
            tags[path] = response.headers["ETag"]
            if path in sums:
                sums[path] = json.loads(body)["bytes-used-total"]
        time.sleep(0.005)
