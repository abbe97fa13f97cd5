// The buttons that copy the link to a view and download its series.

import { seriesCsv } from './api.js';
import { $, element, isPlainClick } from './dom.js';
import { errorTitle, toast } from './messages.js';
import { viewQuery } from './view.js';

/** The time after which the browser has certainly started to save a download. */
const DOWNLOAD_START_MS = 60_000;

export class Share {
  #view = null;

  constructor() {
    $('link').addEventListener('click', (event) => copyLink(event));
    $('csv').addEventListener('click', () => download(this.#view));
  }

  show(view) {
    this.#view = view;
    $('link').href = viewQuery(view);
  }
}

async function copyLink(event) {
  // The clipboard requires HTTPS. Without it the link works like any other.
  if (!navigator.clipboard || !isPlainClick(event)) return;
  event.preventDefault();
  try {
    await navigator.clipboard.writeText($('link').href);
    toast('Link copied.');
  } catch {
    toast('The browser blocked access to the clipboard. Copy the link from the address bar.');
  }
}

async function download(view) {
  const { id, start, end, every } = view;
  $('csv').disabled = true;
  try {
    const href = URL.createObjectURL(await seriesCsv(view));
    const name = `usage-${id.replace(/[^\w.-]/g, '_')}-${start}-${end}-${every}.csv`;
    element('a', { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), DOWNLOAD_START_MS);
  } catch (error) {
    toast(`${errorTitle(error)}: ${error.message}`);
  } finally {
    $('csv').disabled = false;
  }
}
