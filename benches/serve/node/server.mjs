// The same two paths on aggregates by hour and day (contenders.sql), in Node.js with Fastify and pg: statements prepared
// once per connection, up to two processes. It supports neither time zones nor freshness.
import cluster from "node:cluster";
import { availableParallelism } from "node:os";
import Fastify from "fastify";
import pg from "pg";

const [listen, size] = [Number(process.env.PORT), Number(process.env.POOL_SIZE ?? 8)];

// Sums stay below 2^53 here, so a number is exact.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);
pg.types.setTypeParser(pg.types.builtins.TIMESTAMPTZ, (text) => `${text.slice(0, 10)}T${text.slice(11, 19)}Z`);

const statement = (view, key, table, name) => `
  select bucket, sum(bytes)::bigint as bytes, sum(records)::bigint as records, count(*) over () as total,
    (sum(sum(bytes)) over ())::bigint as all_bytes
  from ${view}
  where ${key} = (select id from ${table} where ${name} = $1) and bucket >= $2 and bucket < $3
  group by bucket
  order by bucket
  limit $4 offset $5`;
const views = { simcard: "contenders.usage", organization: "contenders.organization_usage" };
const names = { simcard: ["sim_card_id", "sim_cards", "iccid"], organization: ["organization_id", "organizations", "name"] };
const units = { "1hour": "hourly", "1day": "daily" };

function start() {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: size, options: "-c TimeZone=UTC -c jit=off" });
  const app = Fastify();
  app.get("/api/v1/:kind/:subject/usage", async (request, reply) => {
    const { kind, subject } = request.params;
    const { start, end, every, page = "1", size = "50" } = request.query;
    const after = new Date(Date.parse(`${end}T00:00:00Z`) + 86_400_000).toISOString();
    const { rows } = await pool.query({
      name: `${kind} ${every}`,
      text: statement(`${views[kind]}_${units[every]}`, ...names[kind]),
      values: [subject, `${start}T00:00:00Z`, after, Number(size), (Number(page) - 1) * Number(size)],
      rowMode: "array",
    });
    if (rows.length === 0) return reply.code(404).send();
    return {
      items: rows.map(([date, bytes, records]) => ({ date, "bytes-used-total": bytes, records })),
      total: rows[0][3],
      page: Number(page),
      size: Number(size),
      "bytes-used-total": rows[0][4],
    };
  });
  app.listen({ port: listen, host: "127.0.0.1" });
}

if (cluster.isPrimary) {
  for (let worker = 0; worker < Math.min(2, availableParallelism()); worker += 1) cluster.fork();
} else {
  start();
}
