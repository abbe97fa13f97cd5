// Starts the page and navigates between views. The URL contains the whole view.

import { organizations } from './api.js';
import { FIRST_DATE, toDate } from './calendar.js';
import { Controls } from './controls.js';
import { $, isPlainClick } from './dom.js';
import { clearExtent, extent } from './extent.js';
import { hideFailureAndWelcome, setBusy, showFailure, showWelcome, toast } from './messages.js';
import { Search } from './search.js';
import { Share } from './share.js';
import { initTheme } from './theme.js';
import { initToken } from './token.js';
import { Usage } from './usage.js';
import { MAX_BUCKETS, bucketCount, lastDays, parseView, viewQuery, withReadableGranularity } from './view.js';

const DEFAULT_DAYS = 28;

let view = null;
/** Cancels the requests of the previous view. */
let loading = new AbortController();

const usage = new Usage(go);
const controls = new Controls(go, goToLatest);
const share = new Share();
const search = new Search($('search'), $('found'), (subject) => go({ ...subject, tz: view?.tz ?? 'UTC' }));

/** Goes to a view. `replace` overwrites the browser's current history entry. */
async function go(wanted, { replace = false } = {}) {
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  hideFailureAndWelcome();
  setBusy(true);
  try {
    const complete = await withDefaults({ start: null, end: null, every: null, ...wanted }, signal);
    if (signal.aborted) return;
    if (complete === null) {
      showWelcome();
      return;
    }
    view = complete;
    const query = viewQuery(view);
    if (query !== location.search) history[replace ? 'replaceState' : 'pushState'](null, '', query);
    controls.show(view);
    share.show(view);
    await usage.show(view, signal);
  } catch (error) {
    if (!signal.aborted) showFailure(error, () => go(wanted, { replace }));
  } finally {
    if (!signal.aborted) setBusy(false);
  }
}

/** Goes to the view in the URL. */
function goToUrl() {
  go(parseView(location.search), { replace: true });
}

/** Goes to the last `days` days with usage, or to all of them. */
async function goToLatest(days) {
  const { signal } = loading;
  try {
    // New usage may have been ingested since the last request.
    clearExtent();
    const used = await extent(view, signal);
    if (used) go(withReadableGranularity({ ...view, ...lastDays(used, days) }));
    else toast(`${view.id} has no usage yet.`);
  } catch (error) {
    if (!signal.aborted) toast(error.message);
  }
}

/**
 * Completes a view. The defaults are the organization with the highest usage, its last four weeks,
 * and a granularity that suits them. Returns null if the database has no usage.
 */
async function withDefaults(wanted, signal) {
  let { kind, id } = wanted;
  if (kind === null || kind === undefined) {
    const { items } = await organizations(1, signal);
    if (items.length === 0) return null;
    [kind, id] = ['organization', items[0].organization];
  }
  let complete = { ...wanted, kind, id };
  if (complete.start === null) {
    const used = await extent(complete, signal);
    const today = toDate(Date.now());
    complete = { ...complete, ...lastDays(used ?? { kept: FIRST_DATE, start: today, end: today, latest: today }, DEFAULT_DAYS) };
  }
  const readable = complete.every !== null && bucketCount(complete) <= MAX_BUCKETS;
  return readable ? complete : withReadableGranularity(complete);
}

initTheme(() => usage.redraw());
initToken(
  () => {
    search.clearCache();
    clearExtent();
  },
  () => loading.abort(),
);

// Links to views load without reloading the page.
document.addEventListener('click', (event) => {
  const anchor = event.target.closest('a[data-view]');
  if (!anchor || !isPlainClick(event)) return;
  event.preventDefault();
  go(parseView(anchor.search));
});
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest('input, select, textarea, dialog')) return;
  event.preventDefault();
  $('search').focus();
});
$('check-again').addEventListener('click', goToUrl);
addEventListener('popstate', goToUrl);
goToUrl();
