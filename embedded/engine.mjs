/**
 * The main thread's interface to the database engine: passes messages to the worker thread
 * (`engine-worker.mjs`) and returns its responses. The engine is a single session, so a caller must
 * hold `lock` from its first message until the engine is idle again.
 */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

/** A mutex that is granted in the order of requests. */
class Lock {
  #last = Promise.resolve();

  /** @returns {Promise<() => void>} the function that releases the lock */
  async acquire() {
    const previous = this.#last;
    let release;
    this.#last = new Promise((resolve) => {
      release = resolve;
    });
    await previous;
    return release;
  }
}

/**
 * @typedef {object} Client
 * @property {(bytes: Uint8Array) => void} onOutput receives the engine's output
 * @property {() => Promise<Uint8Array>} onInputWanted returns the next messages of a COPY
 */

export class Engine {
  lock = new Lock();
  /** @type {[string, string][]} The settings reported to new clients. */
  parameters = [];
  /** The session whose unnamed prepared statement is in the engine, if any. */
  unnamedStatementOwner = null;

  #worker;
  #wakeUp = new Int32Array(new SharedArrayBuffer(4));
  /** @type {Client} */
  #client;
  #resolve;
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
   * Runs messages to completion.
   * @param {Uint8Array} bytes complete messages
   * @param {Client} client
   * @returns {Promise<string | null>} the transaction status if the engine is ready for a query
   */
  run(bytes, client) {
    this.#client = client;
    return this.#request('run', bytes);
  }

  /** Runs internal messages and discards their output. */
  runSilently(bytes) {
    return this.run(bytes, { onOutput() {}, onInputWanted() {} });
  }

  /** Closes the database and terminates its thread. */
  async close() {
    await this.#request('close', []);
    this.#worker.removeAllListeners();
    await this.#worker.terminate();
  }

  #request(kind, bytes) {
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#post(kind, bytes);
    });
  }

  #post(kind, bytes) {
    // Messages are views of larger buffers, which would be copied completely.
    const owned = new Uint8Array(bytes);
    this.#worker.postMessage({ kind, bytes: owned }, [owned.buffer]);
    Atomics.add(this.#wakeUp, 0, 1);
    Atomics.notify(this.#wakeUp, 0);
  }

  #receive({ kind, bytes, status, reason }) {
    switch (kind) {
      case 'output':
        this.#client.onOutput(bytes);
        break;
      case 'input':
        this.#client.onInputWanted().then((input) => this.#post('input', input));
        break;
      case 'crashed':
        this.#onCrash(reason);
        break;
      default:
        this.#resolve(status);
    }
  }
}
