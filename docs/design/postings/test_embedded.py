# The same schema on the embedded engine (TimescaleDB 2.23): batches, a page, two periods, late records, answers.
import os; os.environ['DSN'] = 'postgres://postgres@127.0.0.1:5530/postgres'
from lib import *
c = connect(prepare_threshold=None)
print(c.execute("select extversion from pg_extension where extname = 'timescaledb'").fetchone())
c.execute("insert into organizations select i, 'org-' || i from generate_series(1, 10) i"); c.execute("insert into sim_cards select i, '89' || lpad(i::text, 17, '0') from generate_series(1, 500) i")
rng = np.random.default_rng(1); T = 9800 * DAY; allr = []
def batch(n):
    t = T + rng.integers(0, 3 * DAY, n); s = rng.integers(1, 501, n); o = s % 10 + 1; b = rng.integers(0, 1 << 20, n)
    r = make(n, rng, t, s, o, b); post(c, r); allr.append(r)
def rf(level, a, b): c.execute(f"call refresh_continuous_aggregate('{level}', {a}::bigint, {b}::bigint)")
def check(what):
    r = np.concatenate(allr); x = c.execute("select max(total), max(all_bytes), array_agg(bytes order by sim_card_id), array_agg(sim_card_id order by sim_card_id) from sim_card_list(null, '2026-10-01 00:00+00', '2026-12-01 00:00+00', '{}', '{}', -1, null, null, 500, 0)").fetchone()
    y = c.execute("select sum(bytes), sum(records) from organization_list(null, '{2026-10-01 00:00+00}', '{2026-12-01 00:00+00}', '{}', '{}')").fetchone()
    z = c.execute("select sum(records) from sim_card_series(7, null, '{2026-10-01 00:00+00}', '{2026-12-01 00:00+00}', '{}', '{}', '{2026-10-01 00:00+00, 2026-12-01 00:00+00}')").fetchone()
    want = np.zeros(501, np.int64); np.add.at(want, r['s'].astype(int), r['b'].astype(np.int64))
    ok = int(x[1]) == int(r['b'].astype(np.int64).sum()) == int(y[0]) and int(y[1]) == len(r) and int(z[0]) == int((r['s'] == 7).sum()) and all(int(b) == want[s] for b, s in zip(x[2], x[3]))
    print(what, 'right' if ok else 'WRONG', x[:2], y, z, len(r))
batch(5000); batch(3000); check('open')
b = c.execute('select end_page()').fetchone()[0]; print('open batches', c.execute('select is_posting_open(%s)', (b,)).fetchone())
t = time.time(); rf('organization_usage_recent', W, b); print('page refresh', round(time.time() - t, 2), 's'); close(c, 'organization_usage_recent', b); check('page closed'); batch(2000); check('page and open')
for k in range(2):
    batch(3000); b = c.execute('select end_period()').fetchone()[0]; batch(1000)
    c.execute('select archive_records(%s)', (b,)); check('archived')
    rf('organization_usage', closed(c, 'organization_usage'), b); close(c, 'organization_usage', b); check('organizations closed')
    rf('sim_card_usage', closed(c, 'sim_card_usage'), b); close(c, 'sim_card_usage', b); check('period closed')
