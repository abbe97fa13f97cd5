"""A small copy of the service that simusage replaces: FastAPI on one blocking connection, which sums the raw records on
each request and selects the page in Python."""

import os
import threading
from datetime import datetime, timedelta

import psycopg2
from fastapi import FastAPI, HTTPException

connection = psycopg2.connect(os.environ["DATABASE_URL"], options="-c TimeZone=UTC")
connection.autocommit = True
one_at_a_time = threading.Lock()
app = FastAPI()

SERIES = """
select date_trunc(%s, records.time) as bucket, sum(records.bytes)::bigint, count(*)
from contenders.usage_records as records
join {table} on {table}.id = records.{key}
where {table}.{name} = %s and records.time >= %s and records.time < %s
group by 1
order by 1
"""


def series(table, key, name, subject, start, end, every, page, size):
    """Sums all buckets and returns those of one page."""
    first, after = datetime.fromisoformat(start), datetime.fromisoformat(end) + timedelta(days=1)
    unit = {"1hour": "hour", "1day": "day"}[every]
    with one_at_a_time, connection.cursor() as cursor:
        cursor.execute(SERIES.format(table=table, key=key, name=name), (unit, subject, first, after))
        rows = cursor.fetchall()
    if not rows:
        raise HTTPException(404)
    items = [
        {"date": date.strftime("%Y-%m-%dT%H:%M:%SZ"), "bytes-used-total": used, "records": records}
        for date, used, records in rows
    ]
    return {
        "items": items[(page - 1) * size : page * size],
        "total": len(items),
        "page": page,
        "size": size,
        "bytes-used-total": sum(item["bytes-used-total"] for item in items),
    }


@app.get("/api/v1/simcard/{subject}/usage")
def of_sim_card(subject: str, start: str, end: str, every: str, page: int = 1, size: int = 50):
    """The time series of a SIM card."""
    return series("sim_cards", "sim_card_id", "iccid", subject, start, end, every, page, size)


@app.get("/api/v1/organization/{subject}/usage")
def of_organization(subject: str, start: str, end: str, every: str, page: int = 1, size: int = 50):
    """The time series of an organization."""
    return series("organizations", "organization_id", "name", subject, start, end, every, page, size)
