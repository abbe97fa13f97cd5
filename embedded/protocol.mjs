/**
 * The part of PostgreSQL's wire protocol (version 3) that the server itself handles: message
 * framing, statement names in the extended protocol, and the few messages that the server creates.
 * Everything else is passed to the engine unread.
 */

const STARTUP_HEADER = { lengthAt: 0, size: 4 };
const MESSAGE_HEADER = { lengthAt: 1, size: 5 };

/** PostgreSQL's limit for a startup packet. */
const MAX_STARTUP_LENGTH = 10_000;
/** PostgreSQL's limit for any other message. */
const MAX_MESSAGE_LENGTH = 0x3fffffff;

/** Invalid framing: the rest of the client's stream cannot be parsed. */
export class ProtocolViolation extends Error {}

/** Splits a client's byte stream into messages. */
export class MessageStream {
  #incoming;
  /** @type {Buffer[]} */
  #chunks = [];
  #buffered = 0;

  /** @param {import('node:net').Socket} socket */
  constructor(socket) {
    this.#incoming = socket[Symbol.asyncIterator]();
  }

  /**
   * Returns the next packet without a type byte, as clients send before the connection is
   * established.
   * @returns {Promise<Buffer | null>} null if the client has disconnected
   */
  nextStartupPacket() {
    return this.#next(STARTUP_HEADER, MAX_STARTUP_LENGTH);
  }

  /**
   * Returns the next message with its header.
   * @returns {Promise<Buffer | null>} null if the client has disconnected
   */
  next() {
    return this.#next(MESSAGE_HEADER, MAX_MESSAGE_LENGTH);
  }

  /**
   * Returns the next message if it has arrived completely.
   * @returns {Buffer | null}
   */
  nextBuffered() {
    return this.#take(MESSAGE_HEADER, MAX_MESSAGE_LENGTH);
  }

  async #next(header, limit) {
    for (;;) {
      const packet = this.#take(header, limit);
      if (packet) return packet;
      if (!(await this.#receive())) return null;
    }
  }

  async #receive() {
    try {
      const { value, done } = await this.#incoming.next();
      if (done) return false;
      this.#chunks.push(value);
      this.#buffered += value.length;
      return true;
    } catch {
      // A reset connection is treated like a closed one.
      return false;
    }
  }

  #take({ lengthAt, size }, limit) {
    if (this.#buffered < size) return null;
    if (this.#chunks[0].length < size) this.#join();
    const length = this.#chunks[0].readInt32BE(lengthAt);
    if (length < 4 || length > limit) throw new ProtocolViolation('invalid length of message');
    const end = lengthAt + length;
    if (this.#buffered < end) return null;
    // Joining only complete messages copies each byte of a large one once.
    if (this.#chunks[0].length < end) this.#join();
    const first = this.#chunks[0];
    if (first.length === end) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(end);
    this.#buffered -= end;
    return first.subarray(0, end);
  }

  #join() {
    this.#chunks = [Buffer.concat(this.#chunks)];
  }
}

/** @param {Uint8Array} message */
export function typeOf(message) {
  return String.fromCharCode(message[0]);
}

/**
 * Returns the zero-terminated string at an offset of a message.
 * @param {Buffer} message
 * @param {number} start
 */
export function stringAt(message, start) {
  return message.toString('utf8', start, endOfString(message, start));
}

function endOfString(message, start) {
  const end = message.indexOf(0, start);
  if (end < 0) throw new ProtocolViolation('invalid string in message');
  return end;
}

/**
 * Returns the offset of the prepared statement's name in a message, if it has one.
 * @param {Buffer} message
 * @returns {number | null}
 */
export function statementNameOffset(message) {
  switch (typeOf(message)) {
    case 'P':
      return 5;
    case 'B':
      return endOfString(message, 5) + 1;
    case 'D':
    case 'C':
      return message[5] === 0x53 ? 6 : null;
    default:
      return null;
  }
}

/**
 * Returns a copy of the message with the string at an offset replaced.
 * @param {Buffer} message
 * @param {number} start
 * @param {string} replacement
 */
export function withStringAt(message, start, replacement) {
  const tail = message.subarray(endOfString(message, start) + 1);
  const changed = Buffer.concat([message.subarray(0, start), text(replacement), tail]);
  changed.writeInt32BE(changed.length - 1, 1);
  return changed;
}

/**
 * Creates a message of the given type.
 * @param {string} type
 * @param {...(string | Uint8Array)} parts strings are zero-terminated
 */
export function message(type, ...parts) {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'string' ? text(part) : part)));
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body]);
}

function text(value) {
  return Buffer.from(`${value}\0`);
}

/** @param {number} value */
export function int32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

export const SYNC = message('S');

/** @param {string} sql */
export const query = (sql) => message('Q', sql);

/** @param {string} name */
export const closeStatement = (name) => message('C', Buffer.from('S'), name);

/** @param {string} reason */
export const copyFail = (reason) => message('f', reason);

/** @param {string} tag */
export const commandComplete = (tag) => message('C', tag);

/** @param {string} status */
export const readyForQuery = (status) => message('Z', Buffer.from(status));

/**
 * @param {'ERROR' | 'FATAL'} severity
 * @param {string} code the SQLSTATE
 * @param {string} text
 */
export function errorResponse(severity, code, text) {
  return message('E', `S${severity}`, `V${severity}`, `C${code}`, `M${text}`, Buffer.alloc(1));
}
