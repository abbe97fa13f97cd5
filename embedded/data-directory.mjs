/**
 * The data directory of a database: locks it for one process and checks that its cluster is
 * complete.
 *
 * Layout: `pgdata/` is the cluster, `state` records whether its first start completed, and
 * `server-<pid>.claim` is the claim of the process that uses it.
 */

import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const STATE = 'state';
const COMPLETE = 'complete\n';
const INCOMPLETE = 'incomplete\n';
const CLAIM = /^server-(\d+)\.claim$/;

/** The directory cannot be used; the message is for the user. */
export class DirectoryError extends Error {}

export class DataDirectory {
  #path;
  #ownClaim;

  /** @param {string} path */
  constructor(path) {
    this.#path = resolve(path);
    this.#ownClaim = `server-${process.pid}.claim`;
  }

  /** The path of the cluster. */
  get cluster() {
    return join(this.#path, 'pgdata');
  }

  /**
   * Claims the directory for this process, because two engines would destroy the cluster. Each
   * process writes its claim before it looks for others, so of two that start at once at most one
   * succeeds.
   */
  claim() {
    try {
      mkdirSync(this.#path, { recursive: true });
      writeFileSync(join(this.#path, this.#ownClaim), startOf(process.pid));
    } catch (error) {
      throw new DirectoryError(`cannot use data directory ${this.#path}: ${error.message}`);
    }
    for (const name of readdirSync(this.#path)) {
      const match = CLAIM.exec(name);
      if (!match || name === this.#ownClaim) continue;
      if (isAlive(Number(match[1]), readFileSync(join(this.#path, name), 'utf8'))) {
        this.release();
        throw new DirectoryError(
          `data directory ${this.#path} is in use by another server (process ${match[1]}); ` +
            'stop it or use another --data',
        );
      }
      rmSync(join(this.#path, name), { force: true });
    }
  }

  release() {
    rmSync(join(this.#path, this.#ownClaim), { force: true });
  }

  /** Removes a cluster whose first start did not complete. */
  prepare() {
    const state = this.#readState();
    if (state === COMPLETE) return;
    // Without a state file this may be some other directory, in which nothing must be removed.
    if (state === null) this.#refuseForeignFiles();
    this.#writeState(INCOMPLETE);
    rmSync(this.cluster, { recursive: true, force: true });
  }

  markComplete() {
    this.#writeState(COMPLETE);
  }

  #readState() {
    try {
      return readFileSync(join(this.#path, STATE), 'utf8');
    } catch {
      return null;
    }
  }

  #writeState(state) {
    writeFileSync(join(this.#path, STATE), state);
  }

  #refuseForeignFiles() {
    const foreign = readdirSync(this.#path).find((name) => !CLAIM.test(name));
    if (foreign === undefined) return;
    this.release();
    throw new DirectoryError(
      `data directory ${this.#path} contains other files, such as ${foreign}; use an empty directory`,
    );
  }
}

/** Process IDs are reused, so the start time is compared as well. */
function isAlive(pid, start) {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code === 'ESRCH') return false;
  }
  return startOf(pid) === start;
}

/** The start time of a process in clock ticks; empty on systems without /proc. */
function startOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A terminated process remains a zombie until its parent waits for it.
    return state === 'Z' ? 'ended' : fields[18];
  } catch {
    return '';
  }
}
