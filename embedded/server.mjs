/**
 * The embedded TimescaleDB: reads the options, starts the engine, listens, and ends cleanly.
 *
 * What a connection does is in `session.mjs`, what the engine does in `engine.mjs`.
 */

import { createServer } from 'node:net';
import { parseArgs } from 'node:util';

const OLDEST_NODE = 20;
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
    if (values.data === '') throw new Error('--data needs a folder');
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

/** Binds the address; this is done first, for it fails at once while the engine takes its time. */
function listen(server, { host, port }) {
  return new Promise((resolve) => {
    server.once('error', (error) => {
      if (error.code === 'EADDRINUSE') fail(`port ${port} of ${host} is taken`);
      fail(`cannot listen on port ${port} of ${host}: ${error.message}`);
    });
    server.listen(port, host, resolve);
  });
}

/** Takes the data folder, or ends with the reason why that cannot be. */
function takeFolder(folder) {
  try {
    folder.claim();
    folder.prepare();
  } catch (error) {
    fail(error.message);
  }
}

async function startEngine(Engine, folder) {
  try {
    const engine = await Engine.start(folder?.cluster, (reason) => {
      folder?.release();
      fail(`the engine crashed: ${reason}`);
    });
    folder?.markComplete();
    return engine;
  } catch (error) {
    folder?.release();
    return fail(`the engine does not start: ${error.stack ?? error}`);
  }
}

/** Lets clients in; each is served once the engine has started. */
function acceptClients(server, engineStarted, Session) {
  /** @type {Map<import('node:net').Socket, Promise<void>>} */
  const served = new Map();
  let accepted = 0;
  server.on('connection', (socket) => {
    // A lost connection ends the stream of its messages; the event itself needs no answer.
    socket.on('error', () => {});
    accepted += 1;
    const id = accepted;
    const serving = engineStarted
      .then((engine) => new Session(socket, engine, id).serve())
      .finally(() => served.delete(socket));
    served.set(socket, serving);
  });
  return {
    /** Sends the clients away and waits until their transactions are rolled back. */
    async dismiss() {
      server.close();
      const all = [...served];
      for (const [socket] of all) socket.destroy();
      await Promise.all(all.map(([, serving]) => serving));
    },
  };
}

/** Ends the server once on the first of the events that ask for it. */
function endOnRequest(end, exitWithStdin) {
  const signals = ['SIGINT', 'SIGTERM'];
  const endOnce = () => {
    // A second signal ends the process at once, should the engine be busy for long.
    for (const signal of signals) process.off(signal, endOnce);
    process.stdin.off('close', endOnce);
    end();
  };
  for (const signal of signals) process.on(signal, endOnce);
  if (exitWithStdin) process.stdin.on('close', endOnce).resume();
}

async function main() {
  if (Number(process.versions.node.split('.')[0]) < OLDEST_NODE) {
    fail(`Node.js ${OLDEST_NODE} or newer is needed, this is ${process.versions.node}`);
  }
  const options = readOptions();
  if (options.help) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  // Loaded only now: an old Node.js could not read these modules, and would say so at length.
  const { DataFolder } = await import('./data-folder.mjs');
  const { Engine } = await import('./engine.mjs');
  const { Session } = await import('./session.mjs');

  const server = createServer({ noDelay: true });
  const folder = options.data && new DataFolder(options.data);
  await listen(server, options);
  if (folder) takeFolder(folder);
  const engineStarted = startEngine(Engine, folder);
  const clients = acceptClients(server, engineStarted, Session);
  endOnRequest(async () => {
    const engine = await engineStarted;
    await clients.dismiss();
    await engine.close();
    folder?.release();
    process.exit(0);
  }, options['exit-with-stdin']);

  await engineStarted;
  const { address, port } = server.address();
  if (!['127.0.0.1', '::1'].includes(address)) log(`anyone who reaches ${address} may connect`);
  const host = address.includes(':') ? `[${address}]` : address;
  process.stdout.write(`embedded TimescaleDB ready: postgresql://postgres@${host}:${port}/postgres\n`);
}

await main();
