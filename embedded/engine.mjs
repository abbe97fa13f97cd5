/**
 * The main thread's half of the database engine: hands messages to the thread that owns it
 * (`engine-worker.mjs`) and its answers back. The engine is one session with one transaction, so
 * whoever talks to it holds `turn` from the first message until it is idle again.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

/** Lets one holder in after the other, in the order they asked. */
class Turn {
  #last = Promise.resolve();

  /** @returns {Promise<() => void>} the function that ends the turn */
  async take() {
    const previous = this.#last;
    let end;
    this.#last = new Promise((resolve) => {
      end = resolve;
    });
    await previous;
    return end;
  }
}

/**
 * @typedef {object} Conversation
 * @property {(bytes: Uint8Array) => void} onOutput takes what the engine answers
 * @property {() => Promise<Uint8Array>} onInputWanted gives the next messages of a COPY
 */

export class Engine {
  turn = new Turn();
  /** @type {[string, string][]} What clients are told when a connection is established. */
  parameters = [];
  /** Whose unnamed prepared statement the engine holds, if anyone's. */
  unnamedStatementOwner = null;

  #worker;
  #wakeUp = new Int32Array(new SharedArrayBuffer(4));
  /** @type {Conversation} */
  #conversation;
  #settle;
  #onCrash;

  /**
   * @param {string | undefined} dataDirectory undefined for a database in memory
   * @param {(reason: string) => void} onCrash
   */
  static async start(dataDirectory, onCrash) {
    const engine = new Engine();
    engine.#onCrash = onCrash;
    engine.#worker = new Worker(new URL('./engine-worker.mjs', import.meta.url), {
      workerData: { dataDirectory, wakeUp: engine.#wakeUp },
    });
    const [ready] = await once(engine.#worker, 'message');
    engine.parameters = ready.parameters;
    engine.#worker.on('error', (error) => onCrash(error.stack));
    engine.#worker.on('message', (message) => engine.#receive(message));
    return engine;
  }

  /**
   * Runs messages to their end.
   * @param {Uint8Array} bytes complete messages
   * @param {Conversation} conversation
   * @returns {Promise<string | null>} the transaction status if the engine is ready for a query
   */
  run(bytes, conversation) {
    this.#conversation = conversation;
    return this.#request('run', bytes);
  }

  /** Runs messages of the server itself, whose answer no client may see. */
  runSilently(bytes) {
    return this.run(bytes, { onOutput() {}, onInputWanted() {} });
  }

  /** Flushes and closes the database and ends its thread. */
  async close() {
    await this.#request('close', []);
    this.#worker.removeAllListeners();
    await this.#worker.terminate();
  }

  #request(kind, bytes) {
    return new Promise((resolve) => {
      this.#settle = resolve;
      this.#post(kind, bytes);
    });
  }

  #post(kind, bytes) {
    // Messages are views of larger buffers, all of which would be copied along with them.
    const owned = new Uint8Array(bytes);
    this.#worker.postMessage({ kind, bytes: owned }, [owned.buffer]);
    Atomics.add(this.#wakeUp, 0, 1);
    Atomics.notify(this.#wakeUp, 0);
  }

  #receive({ kind, bytes, status, reason }) {
    switch (kind) {
      case 'output':
        this.#conversation.onOutput(bytes);
        break;
      case 'input':
        this.#conversation.onInputWanted().then((input) => this.#post('input', input));
        break;
      case 'crashed':
        this.#onCrash(reason);
        break;
      default:
        this.#settle(status);
    }
  }
}
