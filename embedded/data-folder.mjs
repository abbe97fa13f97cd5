/**
 * The folder a database is kept in: who may use it, and whether the cluster in it is complete.
 *
 * Layout: `pgdata/` is the cluster, `state` says whether its first start went through, and
 * `server-<process>.claim` says which process uses it.
 */

import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const STATE = 'state';
const COMPLETE = 'complete\n';
const INCOMPLETE = 'incomplete\n';
const CLAIM = /^server-(\d+)\.claim$/;

/** A reason to refuse the folder that its user can do something about. */
export class FolderError extends Error {}

export class DataFolder {
  #path;
  #ownClaim;

  /** @param {string} path */
  constructor(path) {
    this.#path = resolve(path);
    this.#ownClaim = `server-${process.pid}.claim`;
  }

  /** The cluster's own folder. */
  get cluster() {
    return join(this.#path, 'pgdata');
  }

  /**
   * Takes the folder for this process: two engines on one cluster destroy it. Each process claims
   * first and looks for others then, so of two that start at once at most one goes on.
   */
  claim() {
    try {
      mkdirSync(this.#path, { recursive: true });
      writeFileSync(join(this.#path, this.#ownClaim), startOf(process.pid));
    } catch (error) {
      throw new FolderError(`cannot use data folder ${this.#path}: ${error.message}`);
    }
    for (const name of readdirSync(this.#path)) {
      const match = CLAIM.exec(name);
      if (!match || name === this.#ownClaim) continue;
      if (isAlive(Number(match[1]), readFileSync(join(this.#path, name), 'utf8'))) {
        this.release();
        throw new FolderError(
          `data folder ${this.#path} is in use by another server (process ${match[1]})`,
        );
      }
      rmSync(join(this.#path, name), { force: true });
    }
  }

  release() {
    rmSync(join(this.#path, this.#ownClaim), { force: true });
  }

  /** Makes sure that the cluster is either complete or not there at all. */
  prepare() {
    const state = this.#readState();
    if (state === COMPLETE) return;
    // A folder without a state is not ours yet, and nothing in it is ours to remove.
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
    throw new FolderError(`data folder ${this.#path} holds other files, such as ${foreign}`);
  }
}

/** A process number is used again after its process has ended, so its start is compared as well. */
function isAlive(pid, start) {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code === 'ESRCH') return false;
  }
  return startOf(pid) === start;
}

/** When a process started, in the system's own unit; empty where the system has no /proc. */
function startOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A killed process whose parent has not asked for its end keeps its entry as a zombie.
    return state === 'Z' ? 'ended' : fields[18];
  } catch {
    return '';
  }
}
