import psycopg, time, os, threading, glob, sys
import numpy as np
DSN = os.environ.get('DSN', 'postgres://postgres@127.0.0.1/postings')
W, P = 1 << 40, 1 << 20
COLS = 'posting, time, sim_card_id, organization_id, bytes'
ROW = np.dtype([('n','>i2'),('l0','>i4'),('posting','>i8'),('l1','>i4'),('t','>i8'),('l2','>i4'),('s','>i4'),('l3','>i4'),('o','>i4'),('l4','>i4'),('b','>i8')])
HEAD, TAIL = b'PGCOPY\n\xff\r\n\0' + b'\0' * 8, b'\xff\xff'
def connect(**kw):
    return psycopg.connect(DSN, autocommit=True, **kw)
def cpu(pid):
    f = open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()
    return (int(f[11]) + int(f[12])) * 10
DAY = 86400 * 1000000
def days_of(t, extra=None):
    d, n = np.unique(t // DAY, return_counts=True)
    return [int(x) for x in d], [int(x) for x in n]   # days since 2000-01-01
def post(c, r, large=False, hold=None, table='usage_records_recent'):
    """One batch in one transaction; r is a ROW array. Returns the posting."""
    with c.transaction():
        n = c.execute('select begin_posting()').fetchone()[0]
        r['posting'] = n
        with c.cursor().copy(f'copy {table} ({COLS}) from stdin (format binary)') as cp:
            cp.write(HEAD); cp.write(r.tobytes()); cp.write(TAIL)
        d, k = days_of(r['t'])
        c.execute("insert into posting_days (day, posting, batches, records, is_large, is_recent) select date '2000-01-01' + d, %s, 1, k, %s, %s from unnest(%s::int[], %s::bigint[]) as x (d, k)", (n, bool(large), table == 'usage_records_recent', d, k))
        if hold: hold()
    return n
def make(n, rng, t, sim, org, by):
    r = np.zeros(n, ROW)
    r['n'] = 5; r['l0'] = 8; r['l1'] = 8; r['t'] = t; r['l2'] = 4; r['s'] = sim; r['l3'] = 4; r['o'] = org; r['l4'] = 8; r['b'] = by
    return r
def closer_connection(level=None):
    c = connect()
    c.execute('set timescaledb.enable_direct_compress_on_cagg_refresh = on')
    c.execute('set timescaledb.enable_direct_compress_insert = on')
    c.execute('set timescaledb.direct_compress_insert_tuple_sort_limit = 2000000')
    c.execute("set work_mem = '256MB'")
    return c
def wait_open(c, boundary):
    while c.execute('select is_posting_open(%s)', (boundary,)).fetchone()[0]:
        time.sleep(0.005)
def refresh(c, level, a, b):
    # Sorting beats hashing where a period has about as many groups as records.
    many = c.execute("select max(id) > 100000 from sim_cards").fetchone()[0]
    c.execute(f"set enable_hashagg = {'off' if level == 'sim_card_usage' and many else 'on'}")
    c.execute(f"call refresh_continuous_aggregate('{level}', {a}::bigint, {b}::bigint, options => '{{\"buckets_per_batch\": 0}}')")
def closed(c, level):
    return c.execute('select closed_before from usage_levels where level = %s', (level,)).fetchone()[0]
def close(c, level, b):
    c.execute('select close_level(%s, %s)', (level, b))
def close_page(c):
    n = c.execute("select coalesce(sum(records), 0) from posting_days where is_recent and posting >= (select max(closed_before) from usage_levels where level in ('organization_usage_recent', 'usage_records'))").fetchone()[0]
    if n == 0: return 0
    a = c.execute("select max(closed_before) from usage_levels where level in ('organization_usage_recent', 'usage_records')").fetchone()[0]
    b = c.execute('select end_page()').fetchone()[0]
    wait_open(c, b)
    refresh(c, 'organization_usage_recent', a, b)
    close(c, 'organization_usage_recent', b)
    return int(n)
def open_records(c):
    return int(c.execute("select coalesce(sum(records), 0) from posting_days where posting >= (select min(closed_before) from usage_levels where level in ('sim_card_usage', 'organization_usage'))").fetchone()[0])
def close_period(c, at_least=1000000, levels=('organization_usage', 'sim_card_usage')):
    n = open_records(c)
    if n < at_least or n == 0: return 0
    b = c.execute('select end_period()').fetchone()[0]
    wait_open(c, b)
    c.execute('select archive_records(%s)', (b,))
    a = min(closed(c, l) for l in levels)
    for column, level in (('is_large', 'large_usage'), ('is_detailed', 'detailed_usage')):
        if c.execute(f'select exists (select from posting_days where {column} and posting >= %s and posting < %s)', (a, b)).fetchone()[0]:
            refresh(c, level, a, b)
    for level in levels:
        if closed(c, level) < b: refresh(c, level, closed(c, level), b)
        close(c, level, b)
    return n
def housekeeping(c):
    """Archived periods go from the row stores after a minute, when no statement can have an older snapshot."""
    safe = c.execute("select max(p.closed_before) from posting_closings p where closed_at < now() - interval '1 minute' and p.closed_before <= (select closed_before from usage_levels where level = 'usage_records') and p.closed_before % 1099511627776 = 0").fetchone()[0]
    done = []
    if safe:
        for t in ('organization_usage_recent', 'usage_records_recent'):
            done += c.execute(f"select drop_chunks('{t}', older_than => {safe}::bigint)").fetchall()
    return done
