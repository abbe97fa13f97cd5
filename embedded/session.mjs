/**
 * One client's connection: its startup, its use of the engine, and its isolation from the other
 * connections, which all share a single session of the engine. A connection holds the engine from a
 * message until the engine is idle, and so for a whole transaction.
 */

import {
  MessageStream,
  ProtocolViolation,
  SYNC,
  closeStatement,
  commandComplete,
  copyFail,
  errorResponse,
  int32,
  message,
  query,
  readyForQuery,
  statementNameOffset,
  stringAt,
  typeOf,
  withStringAt,
} from './protocol.mjs';

const PROTOCOL_MAJOR = 3;
const CANCEL_REQUEST = 80877102;
const SSL_REQUEST = 80877103;
const GSS_ENCRYPTION_REQUEST = 80877104;

const DATABASE = 'postgres';

/** The protocol's transaction status, and one for a batch whose Sync has not arrived. */
const IDLE = 'I';
const IN_TRANSACTION = 'T';
const UNFINISHED = 'unfinished';

/** Messages are passed to the engine in batches of up to this size, which makes COPY faster. */
const BATCH_SIZE = 1024 * 1024;
/** After these messages the engine reports whether it is idle. */
const ENDS_OF_BATCH = 'QSF';
const COPY_MESSAGES = 'dcf';
const ENDS_OF_COPY = 'cf';
/** The messages a client may send while it copies data in. */
const ALLOWED_IN_COPY = 'dcfSH';

/**
 * Commands that would drop the prepared statements of all connections. The server drops only those
 * of the connection, and runs the other effects of DISCARD ALL separately.
 */
const DROPS_ALL_STATEMENTS = /^\s*(?:(discard)|deallocate(?:\s+prepare)?)\s+all\s*;?\s*$/i;
const DISCARD_ALL_BUT_STATEMENTS = query(
  'close all; unlisten *; reset all; discard plans; discard sequences; discard temp; ' +
    'select pg_advisory_unlock_all()',
);

/** The open connections. The last one to close resets the engine's session. */
const openSessions = new Set();

export class Session {
  #socket;
  #engine;
  #messages;
  #id;
  #status = IDLE;
  #statements = new Set();
  /** @type {Buffer | null} The Parse message of the unnamed prepared statement. */
  #unnamedStatement = null;
  #ended = false;
  /** @type {import('./engine.mjs').Client} */
  #client = {
    onOutput: (bytes) => this.#send(bytes),
    onInputWanted: () => this.#copyInput(),
  };

  /**
   * @param {import('node:net').Socket} socket
   * @param {import('./engine.mjs').Engine} engine
   * @param {number} id
   */
  constructor(socket, engine, id) {
    this.#socket = socket;
    this.#engine = engine;
    this.#messages = new MessageStream(socket);
    this.#id = id;
  }

  /** Serves the client until it disconnects. */
  async serve() {
    openSessions.add(this);
    try {
      if (await this.#startUp()) await this.#serveMessages();
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#refuse('08P01', error.message);
    } finally {
      openSessions.delete(this);
      await this.#cleanUp();
      this.#socket.destroySoon();
    }
  }

  /** @returns {Promise<boolean>} whether the connection is established */
  async #startUp() {
    for (;;) {
      const packet = await this.#messages.nextStartupPacket();
      if (!packet) return false;
      if (packet.length < 8) throw new ProtocolViolation('invalid length of startup packet');
      const code = packet.readInt32BE(4);
      if (code === CANCEL_REQUEST) return false;
      if (code === SSL_REQUEST || code === GSS_ENCRYPTION_REQUEST) {
        this.#send(Buffer.from('N'));
      } else {
        return this.#establish(packet);
      }
    }
  }

  #establish(packet) {
    const [major, minor] = [packet.readInt16BE(4), packet.readInt16BE(6)];
    if (major !== PROTOCOL_MAJOR) {
      return this.#refuse('0A000', `unsupported frontend protocol ${major}.${minor}`);
    }
    const options = startupOptions(packet);
    const database = options.get('database') ?? DATABASE;
    if (database !== DATABASE) {
      return this.#refuse('3D000', `database "${database}" does not exist`);
    }
    const unknown = [...options.keys()].filter((name) => name.startsWith('_pq_.'));
    if (minor > 0 || unknown.length > 0) {
      this.#send(message('v', int32(0), int32(unknown.length), ...unknown));
    }
    this.#send(message('R', int32(0)));
    for (const [name, value] of this.#engine.parameters) this.#send(message('S', name, value));
    this.#send(message('K', int32(this.#id), int32(0)));
    this.#send(readyForQuery(IDLE));
    return true;
  }

  #refuse(code, text) {
    this.#send(errorResponse('FATAL', code, text));
    return false;
  }

  async #serveMessages() {
    while (!this.#ended) {
      const first = await this.#nextMessage();
      if (!first) return;
      // A client may still be sending the data of a COPY that has failed.
      if (COPY_MESSAGES.includes(typeOf(first))) continue;
      const release = await this.#engine.lock.acquire();
      try {
        // The server is shutting down, or the client disconnected while it waited.
        if (this.#socket.destroyed) return;
        await this.#runUntilIdle(first);
      } finally {
        release();
      }
      await this.#drain();
    }
  }

  /** Runs messages until the engine is idle or the client has disconnected. */
  async #runUntilIdle(first) {
    try {
      for (let next = first; next; next = await this.#nextMessage()) {
        const batch = this.#collect(next, ENDS_OF_BATCH);
        const status = (await this.#runInstead(batch)) ?? (await this.#run(batch));
        this.#status = status ?? (this.#status === IDLE ? UNFINISHED : this.#status);
        if (this.#status === IDLE) return;
      }
    } finally {
      if (this.#status !== IDLE) await this.#rollBack();
    }
  }

  async #run(batch) {
    if (this.#needsUnnamedStatement(batch)) await this.#restoreUnnamedStatement();
    this.#noteUnnamedStatement(batch);
    const bytes = Buffer.concat(batch.map((each) => this.#withOwnStatementName(each)));
    return this.#engine.run(bytes, this.#client);
  }

  async #nextMessage() {
    const next = this.#ended ? null : await this.#messages.next();
    return this.#orEnd(next);
  }

  #orEnd(next) {
    if (next && typeOf(next) !== 'X') return next;
    this.#ended = true;
    return null;
  }

  /** Returns the message and those that have arrived after it, up to one of the given types. */
  #collect(first, ends) {
    const batch = [first];
    let size = first.length;
    while (!ends.includes(typeOf(batch.at(-1))) && size < BATCH_SIZE) {
      const next = this.#messages.nextBuffered();
      if (!next || !this.#orEnd(next)) break;
      batch.push(next);
      size += next.length;
    }
    return batch;
  }

  /** Returns the next messages of a COPY for which the engine is waiting. */
  async #copyInput() {
    try {
      const first = await this.#nextMessage();
      if (!first) return copyFail('the client disconnected');
      const batch = this.#collect(first, ENDS_OF_COPY);
      if (batch.every((each) => ALLOWED_IN_COPY.includes(typeOf(each)))) {
        return Buffer.concat(batch);
      }
      this.#refuse('08P01', 'unexpected message type during COPY from stdin');
    } catch (error) {
      this.#refuse('08P01', error.message);
    }
    // The engine is blocked until it receives input, so it must be told in either case.
    this.#ended = true;
    return copyFail('the client violated the protocol');
  }

  /**
   * Handles a command that must not reach the engine unchanged.
   * @returns {Promise<string | null>} the transaction status; null for any other command
   */
  async #runInstead([first]) {
    if (typeOf(first) !== 'Q') return null;
    const match = DROPS_ALL_STATEMENTS.exec(stringAt(first, 5));
    if (!match) return null;
    const discards = match[1] !== undefined;
    // In other states, such as a failed transaction, the engine itself rejects the command.
    const isAllowed = this.#status === IDLE || (this.#status === IN_TRANSACTION && !discards);
    if (!isAllowed) return null;
    await this.#dropStatements();
    if (discards) await this.#engine.runSilently(DISCARD_ALL_BUT_STATEMENTS);
    this.#send(commandComplete(discards ? 'DISCARD ALL' : 'DEALLOCATE ALL'));
    this.#send(readyForQuery(this.#status));
    return this.#status;
  }

  /** Prefixes statement names, so that those of different connections do not collide. */
  #withOwnStatementName(each) {
    const at = statementNameOffset(each);
    const name = at === null ? '' : stringAt(each, at);
    if (name === '') return each;
    const ownName = `c${this.#id}_${name}`;
    if (typeOf(each) === 'P') this.#statements.add(ownName);
    if (typeOf(each) === 'C') this.#statements.delete(ownName);
    return withStringAt(each, at, ownName);
  }

  /**
   * All connections share one unnamed statement, so a client's own may have been replaced since it
   * was parsed.
   */
  #needsUnnamedStatement(batch) {
    if (!this.#unnamedStatement || this.#engine.unnamedStatementOwner === this) return false;
    const first = batch.find(namesUnnamedStatement);
    return first !== undefined && typeOf(first) !== 'P';
  }

  async #restoreUnnamedStatement() {
    await this.#engine.runSilently(Buffer.concat([this.#unnamedStatement, SYNC]));
    this.#engine.unnamedStatementOwner = this;
  }

  #noteUnnamedStatement(batch) {
    for (const each of batch) {
      if (typeOf(each) === 'Q') {
        // A simple query drops the unnamed statement.
        this.#unnamedStatement = null;
        this.#engine.unnamedStatementOwner = null;
      } else if (typeOf(each) === 'P' && namesUnnamedStatement(each)) {
        this.#unnamedStatement = Buffer.from(each);
        this.#engine.unnamedStatementOwner = this;
      }
    }
  }

  async #rollBack() {
    const status = await this.#engine.runSilently(SYNC);
    if (status !== IDLE) await this.#engine.runSilently(query('rollback'));
    this.#status = IDLE;
  }

  async #dropStatements() {
    if (this.#statements.size === 0) return;
    const closes = [...this.#statements].map(closeStatement);
    this.#statements.clear();
    await this.#engine.runSilently(Buffer.concat([...closes, SYNC]));
  }

  async #cleanUp() {
    const release = await this.#engine.lock.acquire();
    try {
      if (openSessions.size === 0) {
        await this.#engine.runSilently(query('discard all'));
      } else {
        await this.#dropStatements();
      }
    } finally {
      release();
    }
  }

  #send(bytes) {
    if (this.#socket.writable) this.#socket.write(bytes);
  }

  /** Waits until a slow client has read its responses, so that they do not accumulate in memory. */
  async #drain() {
    const socket = this.#socket;
    if (!socket.writableNeedDrain || socket.destroyed) return;
    await new Promise((resolve) => {
      const done = () => {
        socket.off('drain', done).off('close', done);
        resolve();
      };
      socket.on('drain', done).on('close', done);
    });
  }
}

function namesUnnamedStatement(each) {
  const at = statementNameOffset(each);
  return at !== null && each[at] === 0;
}

function startupOptions(packet) {
  const strings = packet.toString('utf8', 8).split('\0');
  const options = new Map();
  for (let i = 0; i + 1 < strings.length && strings[i] !== ''; i += 2) {
    options.set(strings[i], strings[i + 1]);
  }
  return options;
}
