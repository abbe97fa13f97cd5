# Consistency test: test_consistency.py SECONDS. Three writers with late records, closers of pages and periods (two of
# the latter), housekeeping, readers that compare every answer with the batches their own snapshot shows, and kills.
from lib import *
import random, signal, datetime, collections
SECONDS = int(sys.argv[1]); SIMS, ORGS = 2000, 40
KILL = os.environ.get('KILL', '1') == '1'
T0 = (datetime.datetime(2026, 11, 1) - datetime.datetime(2000, 1, 1)).days * DAY
setup = connect()
setup.execute('create table if not exists test_batches (id bigint primary key)')
stop = time.time() + SECONDS
mutex = threading.Lock()
model = {}          # id -> (t, s, o, b)
begun_commit, committed = set(), {}   # ids whose commit was acknowledged, with the instant
attempted = {}
stats = collections.Counter(); errors = []; differences = []
pids = {}
next_id = [1]
iccids = {i: n for i, n in setup.execute('select id, iccid from sim_cards').fetchall()}
def loop(name, body, pause):
    c = None
    while time.time() < stop and not differences:
        try:
            if c is None or c.closed:
                c = closer_connection() if 'closer' in name else connect()
                c.execute("set statement_timeout = '60s'")
                pids[name] = c.info.backend_pid
            body(c); pause()
        except psycopg.Error as e:
            stats[f'{name}: {type(e).__name__}: {str(e).splitlines()[0][:90]}'] += 1
            try:
                if c is not None and (c.closed or isinstance(e, psycopg.OperationalError)): c.close(); c = None
            except Exception: c = None
            time.sleep(0.2)
        except Exception as e:
            import traceback; errors.append(traceback.format_exc()); time.sleep(1)
def writer(k):
    rng = np.random.default_rng(k + int(time.time()))
    def body(c):
        n = int(rng.integers(1, 400)) if rng.random() < 0.9 else int(rng.integers(400, 4000))
        now = T0 + int((time.time() - start) / SECONDS * 10 * DAY) + 8 * DAY
        late = rng.random(n) < (0.02 if rng.random() < 0.8 else 0.5)
        t = now + rng.integers(0, 3600 * 1000000, n) - np.where(late, rng.integers(0, 8 * DAY, n), 0)
        s = rng.integers(1, SIMS + 1, n); o = s % ORGS + 1; b = rng.integers(0, 1 << 20, n)
        # Some SIM cards move to another organization.
        o = np.where((s % 97 == 0) & (rng.random(n) < 0.5), (o % ORGS) + 1, o)
        if rng.random() < 0.02: b[0] = 1 << 62
        with mutex:
            i = next_id[0]; next_id[0] += 1
            model[i] = (t, s, o, b)
        direct = rng.random() < 0.1
        c.execute(f"set timescaledb.enable_direct_compress_copy = {'on' if direct else 'off'}")
        fail = rng.random() < 0.03
        hold = float(rng.exponential(0.05)) if rng.random() < 0.3 else 0
        def inside():
            c.execute('insert into test_batches values (%s)', (i,))
            if hold: time.sleep(hold)
            if fail: raise psycopg.errors.RaiseException('on purpose')
        post(c, make(n, rng, t, s, o, b), (b >= 1 << 38).any(), inside, 'usage_records' if direct else 'usage_records_recent')
        committed[i] = time.time(); stats['batches'] += 1; stats['records'] += n
    loop(f'writer{k}', body, lambda: time.sleep(float(rng.exponential(0.06))))
def ts(us): return datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(microseconds=int(us))
def reader(k):
    rng = random.Random(k); nr = np.random.default_rng(k)
    cache = {}
    def arrays(ids):
        key = tuple(ids)
        return (np.concatenate([model[i][j] for i in ids]) if ids else np.zeros(0, np.int64) for j in range(4))
    def body(c):
        hi = T0 + int((time.time() - start) / SECONDS * 10 * DAY) + 9 * DAY
        kind = rng.choice(['version', 'sim day', 'sim zone', 'sim hour', 'org hour', 'org zone', 'org list', 'sim list', 'sim list', 'org sims'])
        a = T0 + rng.randrange(0, 9) * DAY; e = a + rng.randrange(1, 12) * DAY
        sh = {'sim zone': 18 * 3600 + 900, 'org zone': 18 * 3600 + 900}.get(kind, 0) * 1000000
        a += sh; e += sh
        step = {'sim hour': 3600 * 1000000, 'org hour': 3600 * 1000000}.get(kind, DAY)
        if 'hour' in kind: e = a + DAY
        edges = list(range(a, e + 1, step)); ed = [ts(x) for x in edges]
        sim, org = rng.randrange(1, SIMS + 1), rng.randrange(1, ORGS + 1)
        before = set(committed)
        E = []
        raw = []
        if kind.endswith('list') or kind == 'org sims':   # cut edges, not on quarter hours either
            raw_a = a - rng.randrange(0, 20 * 3600) * 1000000 if rng.random() < 0.5 else a
            raw_e = e + rng.randrange(0, 20 * 3600) * 1000000 if rng.random() < 0.5 else e
            if raw_a < a: raw.append((raw_a, a))
            if raw_e > e: raw.append((e, raw_e))
        rs, re = [ts(x) for x, _ in raw], [ts(y) for _, y in raw]
        ids_sql = "(select array_agg(id) from test_batches)"
        if kind == 'version':
            q, p = f"select {ids_sql}, version from usage_version(%s, %s)", (ts(a), ts(e))
        elif kind == 'sim day':
            q, p = f"select {ids_sql}, array_agg(x.number), array_agg(x.bytes), array_agg(x.records) from sim_card_series(%s, null, %s, %s, '{{}}', '{{}}', %s) x", (sim, [ed[0]], [ed[-1]], ed)
        elif kind in ('sim zone', 'sim hour'):
            q, p = f"select {ids_sql}, array_agg(x.number), array_agg(x.bytes), array_agg(x.records) from sim_card_series(%s, null, '{{}}', '{{}}', %s, %s, %s) x", (sim, [ed[0]], [ed[-1]], ed)
        elif kind in ('org hour', 'org zone'):
            q, p = f"select {ids_sql}, array_agg(x.number), array_agg(x.bytes), array_agg(x.records) from organization_series(%s, %s, %s, '{{}}', '{{}}', %s) x", (org, [ed[0]], [ed[-1]], ed)
        elif kind == 'org list':
            q, p = f"select {ids_sql}, array_agg(x.organization_id), array_agg(x.bytes), array_agg(x.records) from organization_list(null, %s, %s, %s::timestamptz[], %s::timestamptz[]) x", ([ed[0]], [ed[-1]], rs, re)
        else:
            lim = rng.choice([1, 5, 30]); off = rng.choice([0, 0, 7]); d = rng.choice([-1, -1, 1])
            q = f"select {ids_sql}, max(x.total), max(x.all_bytes), array_agg(x.sim_card_id), array_agg(x.bytes), array_agg(x.records) from sim_card_list(%s, %s, %s, %s::timestamptz[], %s::timestamptz[], %s, null, null, %s, %s) x"
            p = ([org] if kind == 'org sims' else None, ed[0], ed[-1], rs, re, d, lim, off)
        rt = time.time()
        row = c.execute(q, p).fetchone()
        stats['ms ' + kind] += int((time.time() - rt) * 1000); stats['checked ' + kind] += 1
        ids = row[0] or []
        missing = before - set(ids)
        if missing: differences.append(('committed but not visible', kind, sorted(missing)[:5])); return
        t, s, o, b = arrays(ids)
        if kind == 'version':
            x, y = a // DAY, (e - 1) // DAY
            want = sum(int(((dd := np.unique(model[i][0] // DAY)) >= x).astype(int) @ (dd <= y).astype(int)) for i in ids)
            if int(row[1]) != want: differences.append((kind, int(row[1]), want))
            return
        lo, up = (raw_a, raw_e) if 'list' in kind or kind == 'org sims' else (a, e)
        m = (t >= lo) & (t < up)
        if kind.startswith('sim ') and kind != 'sim list': m &= s == sim
        if kind in ('org hour', 'org zone', 'org sims'): m &= o == org
        t, s, o, b = t[m], s[m], o[m], b[m]
        key = (t - a) // step + 1 if kind.split()[1] in ('day', 'zone', 'hour') else (o if kind == 'org list' else s)
        want = {}
        for u in np.unique(key):
            mm = key == u
            want[int(u)] = (sum(int(v) for v in b[mm]) if (b[mm] >= 1 << 40).any() else int(b[mm].sum()), int(mm.sum()))
        if kind in ('sim list', 'org sims'):
            order = sorted(((d * v[0], iccids[u], u) for u, v in want.items()))
            page = [u for _, _, u in order[off:off + lim]]
            total, allb = len(want), sum(v[0] for v in want.values())
            got = dict(zip(row[3] or [], zip(row[4] or [], row[5] or [])))
            got = {u: (int(x), int(y)) for u, (x, y) in got.items() if u is not None}
            ok = int(row[1]) == total and int(row[2]) == allb and got == {u: want[u] for u in page}
            if not ok: differences.append((kind, p, 'total', row[1], total, 'bytes', row[2], allb, {u: (got.get(u), want.get(u)) for u in set(got) | set(page) if got.get(u) != want.get(u)}))
        else:
            got = dict(zip(row[1] or [], zip(row[2] or [], row[3] or [])))
            got = {u: (int(x), int(y)) for u, (x, y) in got.items()}
            if got != want: differences.append((kind, p[0], ts(a), ts(e), {u: (got.get(u), want.get(u)) for u in set(got) | set(want) if got.get(u) != want.get(u)}))
    loop(f'reader{k}', body, lambda: None)
def count(name, n):
    if n: stats[name] += 1
start = time.time()
period = int(os.environ.get('PERIOD', 8000))
threads = [threading.Thread(target=writer, args=(k,)) for k in range(3)] + [threading.Thread(target=reader, args=(k,)) for k in range(2)]
threads += [threading.Thread(target=loop, args=('page closer', lambda c: count('pages', close_page(c)), lambda: time.sleep(0.3)))]
threads += [threading.Thread(target=loop, args=(f'period closer {k}', lambda c: count('periods', close_period(c, period)), lambda: time.sleep(0.4))) for k in range(2)]
threads += [threading.Thread(target=loop, args=('housekeeping closer', lambda c: count('chunks', len(housekeeping(c))), lambda: time.sleep(2)))]
def killer():
    hard = time.time() + 60
    while time.time() < stop - 5 and not differences:
        time.sleep(random.expovariate(1 / 3))
        name = random.choice(['writer0', 'writer1', 'writer2', 'page closer', 'period closer 0', 'period closer 1', 'housekeeping closer'])
        try:
            if time.time() > hard:
                hard = time.time() + 60
                name = random.choice(['writer0', 'page closer', 'period closer 0', 'period closer 1', 'housekeeping closer'])
                os.kill(pids[name], signal.SIGKILL); stats['kill -9 ' + name] += 1
            else:
                connect().execute('select pg_terminate_backend(%s)', (pids[name],)); stats['terminated ' + name] += 1
        except Exception as e: stats['killer: ' + type(e).__name__] += 1
if KILL: threads.append(threading.Thread(target=killer))
[t.start() for t in threads]
while any(t.is_alive() for t in threads):
    time.sleep(15)
    print(f'{time.time()-start:5.0f} s', {k: v for k, v in stats.items() if k in ('batches', 'records', 'periods', 'pages', 'chunks')}, 'answers', sum(v for k, v in stats.items() if k.startswith('checked')), 'differences', len(differences), 'errors', len(errors), flush=True)
for k, v in sorted(stats.items()): print(f'{v:8} {k}')
print('DIFFERENCES', differences[:3]); print('ERRORS', errors[:2])
