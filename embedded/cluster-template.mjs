/**
 * Caches a new database cluster as a tar archive next to the installed packages, so that each
 * installation creates it only once. Without the archive, starting is slower.
 */

import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const DIRECTORY = fileURLToPath(new URL('./node_modules/.cache/', import.meta.url));
const FILE = `${DIRECTORY}cluster-template.tar`;

/** @returns {Blob | null} */
export function loadTemplate() {
  try {
    return new Blob([readFileSync(FILE)]);
  } catch {
    return null;
  }
}

/** @param {Uint8Array} archive */
export function storeTemplate(archive) {
  // Renaming is atomic, so a server that starts meanwhile finds either a complete archive or none.
  const unfinished = `${FILE}.${process.pid}`;
  try {
    mkdirSync(DIRECTORY, { recursive: true });
    writeFileSync(unfinished, archive);
    renameSync(unfinished, FILE);
  } catch {
    rmSync(unfinished, { force: true });
  }
}
