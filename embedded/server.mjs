/**
 * The embedded TimescaleDB server: parses the options, starts the engine, listens, and shuts down.
 *
 * `session.mjs` handles one connection, and `engine.mjs` runs the engine.
 */

import { createServer } from 'node:net';
import { parseArgs } from 'node:util';

const MIN_NODE_VERSION = 20;
const USAGE =
  'usage: node server.mjs [--port 5432] [--host 127.0.0.1] [--data DIR] [--exit-with-stdin]';

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

function log(text) {
  process.stderr.write(`embedded TimescaleDB: ${text}\n`);
}

function fail(text, status = EXIT_FAILURE) {
  log(text);
  process.exit(status);
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        port: { type: 'string', default: '5432' },
        host: { type: 'string', default: '127.0.0.1' },
        data: { type: 'string' },
        'exit-with-stdin': { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.data === '') throw new Error('--data needs a directory');
    return { ...values, port: portNumber(values.port) };
  } catch (error) {
    return fail(`${error.message.split('\n')[0]}; ${USAGE}`, EXIT_USAGE);
  }
}

function portNumber(text) {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65535) {
    throw new Error(`--port must be a number up to 65535, not "${text}"`);
  }
  return port;
}

/** Binds the address. This comes first, because it fails fast and the engine starts slowly. */
function listen(server, { host, port }) {
  return new Promise((resolve) => {
    server.once('error', (error) => {
      if (error.code === 'EADDRINUSE') {
        fail(`port ${port} of ${host} is in use; choose another --port`);
      }
      fail(`cannot listen on port ${port} of ${host}: ${error.message}`);
    });
    server.listen(port, host, resolve);
  });
}

/** Claims the data directory, or exits with an error. */
function claimDirectory(directory) {
  try {
    directory.claim();
    directory.prepare();
  } catch (error) {
    fail(error.message);
  }
}

async function startEngine(Engine, directory) {
  try {
    const engine = await Engine.start(directory?.cluster, (reason) => {
      directory?.release();
      fail(`the engine crashed: ${reason}`);
    });
    directory?.markComplete();
    return engine;
  } catch (error) {
    directory?.release();
    return fail(`the engine did not start: ${error.stack ?? error}`);
  }
}

/** Accepts connections. Each is served once the engine has started. */
function acceptClients(server, engineStarted, Session) {
  /** @type {Map<import('node:net').Socket, Promise<void>>} */
  const served = new Map();
  let accepted = 0;
  server.on('connection', (socket) => {
    // A lost connection also ends its message stream, where it is handled.
    socket.on('error', () => {});
    accepted += 1;
    const id = accepted;
    const serving = engineStarted
      .then((engine) => new Session(socket, engine, id).serve())
      .finally(() => served.delete(socket));
    served.set(socket, serving);
  });
  return {
    /** Closes all connections and waits until their transactions are rolled back. */
    async close() {
      server.close();
      const all = [...served];
      for (const [socket] of all) socket.destroy();
      await Promise.all(all.map(([, serving]) => serving));
    },
  };
}

/** Calls `shutDown` on the first signal, or when standard input closes. */
function onShutdownRequest(shutDown, exitWithStdin) {
  const signals = ['SIGINT', 'SIGTERM'];
  const once = () => {
    // A second signal kills the process, in case the engine stays busy.
    for (const signal of signals) process.off(signal, once);
    process.stdin.off('close', once);
    shutDown();
  };
  for (const signal of signals) process.on(signal, once);
  if (exitWithStdin) process.stdin.on('close', once).resume();
}

async function main() {
  if (Number(process.versions.node.split('.')[0]) < MIN_NODE_VERSION) {
    fail(`Node.js ${MIN_NODE_VERSION} or newer is required; this is ${process.versions.node}`);
  }
  const options = readOptions();
  if (options.help) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  // Imported after the version check, because an old Node.js fails on these with a long error.
  const { DataDirectory } = await import('./data-directory.mjs');
  const { Engine } = await import('./engine.mjs');
  const { Session } = await import('./session.mjs');

  const server = createServer({ noDelay: true });
  const directory = options.data && new DataDirectory(options.data);
  await listen(server, options);
  if (directory) claimDirectory(directory);
  const engineStarted = startEngine(Engine, directory);
  const clients = acceptClients(server, engineStarted, Session);
  onShutdownRequest(async () => {
    const engine = await engineStarted;
    await clients.close();
    await engine.close();
    directory?.release();
    process.exit(0);
  }, options['exit-with-stdin']);

  await engineStarted;
  const { address, port } = server.address();
  if (!['127.0.0.1', '::1'].includes(address)) {
    log(`warning: anyone who can reach ${address} can connect without a password`);
  }
  const host = address.includes(':') ? `[${address}]` : address;
  process.stdout.write(`embedded TimescaleDB ready: postgresql://postgres@${host}:${port}/postgres\n`);
}

await main();
