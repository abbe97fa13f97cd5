"""The same two paths on aggregates by hour and day (contenders.sql), with FastAPI and asyncpg tuned for speed: a pool,
statements prepared once, one round trip per request, orjson, no response model. It supports neither time zones nor
freshness."""

import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import orjson
from fastapi import FastAPI, HTTPException, Request, Response

SERIES = """
select bucket, sum(bytes)::bigint as bytes, sum(records)::bigint as records, count(*) over () as total,
    (sum(sum(bytes)) over ())::bigint as all_bytes
from {view}
where {key} = (select id from {table} where {name} = $1) and bucket >= $2 and bucket < $3
group by bucket
order by bucket
limit $4 offset $5
"""
SIM_CARD = {"key": "sim_card_id", "table": "sim_cards", "name": "iccid"}
ORGANIZATION = {"key": "organization_id", "table": "organizations", "name": "name"}
STATEMENTS = {
    ("simcard", "1hour"): SERIES.format(view="contenders.usage_hourly", **SIM_CARD),
    ("simcard", "1day"): SERIES.format(view="contenders.usage_daily", **SIM_CARD),
    ("organization", "1hour"): SERIES.format(view="contenders.organization_usage_hourly", **ORGANIZATION),
    ("organization", "1day"): SERIES.format(view="contenders.organization_usage_daily", **ORGANIZATION),
}


@asynccontextmanager
async def with_pool(app):
    """Opens a pool in each worker; together they have 16 connections."""
    settings = {"TimeZone": "UTC", "jit": "off"}
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=8, max_size=8, server_settings=settings) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=with_pool)


@app.get("/api/v1/{kind}/{subject}/usage")
async def series(request: Request, kind: str, subject: str, start: str, end: str, every: str, page: int = 1, size: int = 50):
    """The time series of a SIM card or an organization."""
    first = datetime.fromisoformat(start).replace(tzinfo=UTC)
    after = datetime.fromisoformat(end).replace(tzinfo=UTC) + timedelta(days=1)
    statement = STATEMENTS[kind, every]
    rows = await request.app.state.pool.fetch(statement, subject, first, after, size, (page - 1) * size)
    if not rows:
        raise HTTPException(404)
    items = [
        {"date": row[0].strftime("%Y-%m-%dT%H:%M:%SZ"), "bytes-used-total": row[1], "records": row[2]} for row in rows
    ]
    answer = {"items": items, "total": rows[0][3], "page": page, "size": size, "bytes-used-total": rows[0][4]}
    return Response(orjson.dumps(answer), media_type="application/json")
