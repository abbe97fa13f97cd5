"""What the benchmarks share: databases, workloads, services and load generators."""

import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg2

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
SIMUSAGE = PROJECT / "target/release/simusage"
PGBENCH = "/usr/lib/postgresql/15/bin/pgbench"

FIRST_DAY = datetime(2020, 2, 1)
DAYS = 28
SIM_CARDS = 1_000
ORGANIZATIONS = 100
PAGE = 50

SESSION = "-c TimeZone=UTC -c statement_timeout=10000 -c plan_cache_mode=force_custom_plan"
"""The settings of each database session of simusage serve."""


class Server:
    """The server under test and its databases."""

    def __init__(self, url):
        self.url = url

    def of(self, database):
        """The URL of a database."""
        base, _, parameters = self.url.partition("?")
        return base.rsplit("/", 1)[0] + "/" + database + ("?" + parameters if parameters else "")

    def execute(self, database, *statements, options=""):
        """Runs statements in autocommit mode. Returns the rows of the last one."""
        connection = psycopg2.connect(self.of(database) if database else self.url, options=options)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else None
        connection.close()
        return rows

    def environment(self, database):
        """The environment of a client process."""
        serve = {"SIMUSAGE_LOG": "warn", "SIMUSAGE_SERVE_REQUESTS_PER_SECOND": "0"}
        return {**os.environ, **serve, "DATABASE_URL": self.of(database)}

    def simusage(self, database, *arguments):
        """Runs simusage and waits for it."""
        subprocess.run([str(part) for part in (SIMUSAGE, *arguments)], check=True, stdout=subprocess.DEVNULL,
                       env=self.environment(database), cwd=HERE)

    def drop(self, database):
        """Drops a database, even if it is in use."""
        self.execute(None, f"drop database if exists {database} with (force)")

    def fill(self, database, records):
        """Recreates a database with the given number of records of the month."""
        self.drop(database)
        self.execute(None, f"create database {database}")
        self.simusage(database, "migrate")
        with tempfile.TemporaryDirectory() as folder:
            inventory, usage = Path(folder) / "inventory.csv", Path(folder) / "usage.csv"
            generate(inventory, "inventory", "--sim-cards", SIM_CARDS, "--organizations", ORGANIZATIONS)
            generate(usage, "usage", "--inventory", inventory, "--records", records, "--start", f"{FIRST_DAY:%F}",
                     "--days", DAYS, "--format", "csv")
            self.simusage(database, "ingest", "--inventory", inventory)
            self.simusage(database, "ingest", usage)
        self.execute(database, "vacuum analyze", "checkpoint")

    def fill_contenders(self, database):
        """Adds what the other services read."""
        statements = (HERE / "contenders.sql").read_text().split(";\n\n")
        self.execute(database, *statements, options="-c TimeZone=UTC")


def generate(path, *arguments):
    """Writes generated data to a file."""
    with path.open("wb") as output:
        subprocess.run([str(part) for part in (SIMUSAGE, "generate", *arguments)], check=True, stdout=output)


@dataclass(frozen=True)
class Workload:
    """A request to measure, and the SIM cards or organizations to request it for."""

    name: str
    kind: str
    every: str
    step: timedelta
    subjects: tuple

    def path(self, subject):
        """The path of the request for a SIM card or an organization."""
        last = FIRST_DAY + timedelta(days=DAYS - 1)
        return f"/api/v1/{self.kind}/{subject}/usage?start={FIRST_DAY:%F}&end={last:%F}&every={self.every}&page=1&size={PAGE}"

    def statement(self, subject):
        """The statement that simusage runs for the request, with its parameters. `subject` is an SQL expression."""
        text = (PROJECT / "sql/queries/usage_series.sql").read_text()
        text = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        # Without colons, which pgbench would take for variables.
        instant = lambda time: f"{time:%Y%m%dT%H%M%SZ}"
        instants = lambda *times: "'{" + ",".join(map(instant, times)) + "}'::timestamptz[]"
        end = FIRST_DAY + timedelta(days=DAYS)
        starts = [FIRST_DAY + self.step * number for number in range(timedelta(days=DAYS) // self.step)]
        identifiers = [subject, "null"] if self.kind == "simcard" else ["null", subject]
        whole, nothing = instants(FIRST_DAY, end), instants()
        slots, days = (nothing, whole) if self.every == "1day" else (whole, nothing)
        parameters = [*identifiers, "null", nothing, slots, days, instants(*starts), "0", str(len(starts)), str(PAGE + 1), "0",
                      *(f"timestamptz '{instant(time)}'" for time in (FIRST_DAY, end)), nothing, nothing, nothing]
        return re.sub(r"\$(\d+)", lambda match: parameters[int(match[1]) - 1], text)


def iccid(number):
    """The ICCID of the generated SIM card with this number."""
    return f"8944{number:015}"


def organization(number):
    """The name of the generated organization with this number."""
    return f"org{number:05}"


WORKLOADS = (
    Workload("SIM card, daily", "simcard", "1day", timedelta(days=1), tuple(map(iccid, range(SIM_CARDS)))),
    Workload("organization, hourly", "organization", "1hour", timedelta(hours=1),
             tuple(map(organization, range(ORGANIZATIONS)))),
)


class Service:
    """A running HTTP service."""

    def __init__(self, command, port, environment):
        self.port = port
        self.process = subprocess.Popen([str(part) for part in command], env=environment, cwd=HERE, stdout=subprocess.DEVNULL)
        for _ in range(300):
            try:
                self.get(WORKLOADS[0].path(iccid(0)))
                return
            except OSError:
                time.sleep(0.1)
        self.stop()
        sys.exit(f"{command} did not respond within 30 s")

    def get(self, path, tag=None):
        """Sends a request. Returns the status, the JSON and the ETag of the response."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"If-None-Match": tag} if tag else {})
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, json.load(response), response.headers["ETag"]
        except urllib.error.HTTPError as error:
            return error.code, None, error.headers["ETag"]

    def peak_memory(self):
        """The peak memory of the process and its children, in MB."""
        children = {}
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            except (FileNotFoundError, ProcessLookupError):
                continue
            kilobytes = int(fields.get("VmHWM", "0 kB").split()[0])
            children.setdefault(int(fields["PPid"]), []).append((int(fields["Pid"]), kilobytes))
            if int(fields["Pid"]) == self.process.pid:
                own = kilobytes
        of_children = lambda parent: sum(kilobytes + of_children(child) for child, kilobytes in children.get(parent, []))
        return (own + of_children(self.process.pid)) / 1024

    def stop(self):
        """Stops the process."""
        self.process.terminate()
        self.process.wait()


@dataclass
class Measurement:
    """The result of one run: requests per second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


def wrk(service, workload, connections, seconds, tags=None):
    """Runs wrk with random subjects."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requests:
        for subject in workload.subjects:
            print(workload.path(subject), tags[subject] if tags else "", sep="\t", file=requests)
        requests.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", HERE / "requests.lua",
                   f"http://127.0.0.1:{service.port}", "--", requests.name, random.randrange(2**31)]
        output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(output.splitlines()[-1])
    if not result["requests"]:
        return Measurement(0, float("nan"), float("nan"))
    if result["failed"]:
        sys.exit(f"{result['failed']} requests failed: {command}")
    return Measurement(result["requests"] / result["seconds"], result["p50"], result["p99"])


def pgbench(server, database, workload, connections, seconds):
    """Runs the same statement in pgbench with the same number of connections."""
    if workload.kind == "simcard":
        number, subject = f"random({iccid(0)}, {iccid(SIM_CARDS - 1)})", ":number::text"
    else:
        number, subject = f"random(0, {ORGANIZATIONS - 1})", "('org' || lpad(:number::text, 5, '0'))"
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.sql"
        script.write_text(f"\\set number {number}\n{workload.statement(subject).strip()};\n")
        warm_up = 2 + connections // 8
        command = [PGBENCH, "-n", "-M", "prepared", "-c", connections, "-j", 1, "-T", warm_up + seconds, "-f", script, "-l",
                   "--log-prefix", f"{folder}/log", server.of(database)]
        output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "PGOPTIONS": SESSION}).stdout
        log = [list(map(int, line.split())) for path in Path(folder).glob("log*") for line in path.read_text().splitlines()]
    if not re.search(r"number of failed transactions: 0 ", output):
        sys.exit(output)
    # New sessions fill their caches first, and the sessions of a service are not new. So measuring starts when each
    # has run the statement once.
    ends = [(second + microsecond / 1e6, client, latency) for client, _, latency, _, second, microsecond in log]
    first = {}
    for end, client, _ in sorted(ends):
        first.setdefault(client, end)
    warm = max(first.values())
    latencies = sorted(latency for end, _, latency in ends if end > warm)
    if len(latencies) < connections:
        sys.exit(f"pgbench did not warm up within {warm_up} s; try fewer connections")
    percentile = lambda share: latencies[int(share * (len(latencies) - 1))] / 1e3
    return Measurement(len(latencies) / (max(ends)[0] - warm), percentile(0.5), percentile(0.99))


def simusage(server, database, port=18000):
    """simusage serve with its default configuration."""
    return Service([SIMUSAGE, "serve", "--listen", f"127.0.0.1:{port}"], port, server.environment(database))


def simusage_uncached(server, database, port=18004):
    """simusage serve without its cache of answers, so that each response is read from the database."""
    environment = {**server.environment(database), "SIMUSAGE_SERVE_CACHE_MB": "0"}
    return Service([SIMUSAGE, "serve", "--listen", f"127.0.0.1:{port}"], port, environment)


def replaced(server, database, port=18001):
    """The service that simusage replaces."""
    return uvicorn("replaced:app", 1, port, server.environment(database))


def tuned(server, database, port=18002):
    """FastAPI and asyncpg."""
    return uvicorn("tuned:app", 2, port, server.environment(database))


def uvicorn(app, workers, port, environment):
    """A Python service run by uvicorn."""
    return Service([sys.executable, "-m", "uvicorn", app, "--port", port, "--workers", workers, "--loop", "uvloop", "--http",
                    "httptools", "--no-access-log", "--log-level", "warning"], port, environment)


def node(server, database, port=18003):
    """Fastify and pg."""
    return Service(["node", "node/server.mjs"], port, {**server.environment(database), "PORT": str(port)})


def median(values):
    """The median."""
    return statistics.median(values)


def load():
    """The load averages of the machine."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())
