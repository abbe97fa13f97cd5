"""Whether answers stay right while an ingest goes on."""

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
from bench import QUESTIONS

DATABASE = "simusage_bench_serve_mixed"
CLIENTS = 8
RECORDS_PER_SECOND = 5_000
STREAM_DAYS = 28
"""Days behind the month that is filled; the records of the stream fall into them."""


class Tally:
    """What the clients have seen."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {}
        self.latencies = []

    def add(self, what, seconds):
        """Counts an answer."""
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1
            self.latencies.append(seconds)


def measure_mixed(server, arguments):
    """Asks while simusage ingests a stream. The sums of settled days must not move, those of the stream's days must not
    shrink, and at its end they must be what was sent."""
    server.fill(DATABASE, arguments.records)
    service = bench.simusage(server, DATABASE, 18020)
    try:
        with tempfile.TemporaryDirectory() as folder:
            stream, sent = make_stream(server, Path(folder), arguments.mixed)
            settled = {(question, subject): content(service.get(question.path(subject))[1])
                       for question in QUESTIONS for subject in question.subjects}
            tally, done = Tally(), threading.Event()
            clients = [threading.Thread(target=ask, args=(service.port, settled, tally, done)) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            started = time.monotonic()
            status = feed(server, stream)
            done.set()
            for client in clients:
                client.join()
            elapsed = time.monotonic() - started
        shown = sum(service.get(stream_path(number))[1]["bytes-used-total"] for number in range(bench.ORGANIZATIONS))
        memory = service.peak_memory()
    finally:
        service.stop()
        server.drop(DATABASE)
    tally.latencies.sort()
    print(f"\n{elapsed:.0f} s with an ingest of {RECORDS_PER_SECOND:,} records/s and {CLIENTS} clients: {tally.counts}; "
          f"p50 {tally.latencies[len(tally.latencies) // 2] * 1e3:.2f} ms, "
          f"p99 {tally.latencies[len(tally.latencies) * 99 // 100] * 1e3:.2f} ms, peak memory {memory:.0f} MB; "
          f"ingest ended with {status}; bytes of the stream: {sent:,} sent, {shown:,} answered; load {bench.load()}")
    if status or shown != sent or set(tally.counts) - {"200", "304"}:
        sys.exit("answers were wrong")


def content(answer):
    """What must not change."""
    return answer["items"], answer["total"], answer["bytes-used-total"]


def make_stream(server, folder, seconds):
    """Records of the days behind the month, and how many bytes they are."""
    inventory, stream = folder / "inventory.csv", folder / "stream.csv"
    bench.generate(inventory, "inventory", "--sim-cards", bench.SIM_CARDS, "--organizations", bench.ORGANIZATIONS)
    first = bench.FIRST_DAY + timedelta(days=bench.DAYS)
    bench.generate(stream, "usage", "--inventory", inventory, "--records", seconds * RECORDS_PER_SECOND, "--start",
                   f"{first:%F}", "--days", STREAM_DAYS, "--format", "csv", "--seed", "2")
    lines = stream.read_text().splitlines(keepends=True)
    return lines, sum(int(line.split(",")[1]) for line in lines[1:])


def feed(server, lines):
    """Pipes the records to simusage, slowly; answers its exit status."""
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
    """The days of the stream, for an organization."""
    first = bench.FIRST_DAY + timedelta(days=bench.DAYS)
    last = first + timedelta(days=STREAM_DAYS - 1)
    return f"/api/v1/organization/{bench.organization(number)}/usage?start={first:%F}&end={last:%F}&every=1hour&size=1"


def ask(port, settled, tally, done):
    """Asks for settled days, with and without the tag of an earlier answer, and for the stream's days."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    questions, tags, sums = list(settled), {}, {}
    while not done.is_set():
        if random.random() < 0.2:
            number = random.randrange(bench.ORGANIZATIONS)
            path, tag = stream_path(number), None
            check = lambda answer: sums.setdefault(path, 0) <= answer["bytes-used-total"]
        else:
            question, subject = key = random.choice(questions)
            path = question.path(subject)
            tag = tags.get(path) if random.random() < 0.5 else None
            check = lambda answer: content(answer) == settled[key]
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
