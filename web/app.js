// The page: fetches what a view needs and shows it. The address holds the view; nothing else does.

import {
  Problem,
  csv,
  extent,
  forgetToken,
  inventory,
  onTokenNeeded,
  organizations,
  series,
  token,
  topSimCards,
} from './api.js';
import { Chart } from './chart.js';
import { Search } from './search.js';
import {
  EVERY,
  MOST_BUCKETS,
  bucketEnd,
  buckets as countBuckets,
  days,
  daysBetween,
  fitted,
  lastDays,
  link,
  read,
  shifted,
} from './view.js';
import * as format from './format.js';

const $ = (id) => document.getElementById(id);

/** What is looked at. */
let view = null;
/** What is shown of it: { buckets, answer }, or null. */
let shown = null;
/** Ends what is under way for a view that nobody looks at any more. */
let underWay = new AbortController();
/** First and last day with usage of the subject and time zone in `for`. */
let known = { for: null, days: null };

const chart = new Chart($('chart'), { hovered: hover, picked: pick });
const search = new Search($('search'), $('found'), (subject) => go({ ...subject, tz: view?.tz ?? 'UTC' }));

// --- Going somewhere ------------------------------------------------------------------------------------------

/** Shows a view, and puts it into the address: as a new entry, or in place of the one there is. */
async function go(wanted, { replace = false } = {}) {
  underWay.abort();
  underWay = new AbortController();
  const { signal } = underWay;
  $('failure').hidden = $('welcome').hidden = true;
  busy(true);
  try {
    const whole = await complete({ start: null, end: null, every: null, ...wanted }, signal);
    if (signal.aborted) return;
    if (whole === null) {
      welcome();
      return;
    }
    view = whole;
    const address = link(view);
    if (address !== location.search) history[replace ? 'replaceState' : 'pushState'](null, '', address);
    showControls();
    await Promise.all([showSeries(signal), showTop(signal), showOwner(signal)]);
  } catch (error) {
    if (!signal.aborted) fail(error, () => go(wanted, { replace }));
  } finally {
    if (!signal.aborted) busy(false);
  }
}

/** Fills in what a view leaves open: whose usage, which days, by what. Null where there is nothing to see. */
async function complete(wanted, signal) {
  let { kind, id } = wanted;
  if (kind === null || kind === undefined) {
    const { items } = await organizations(1, signal);
    if (items.length === 0) return null;
    [kind, id] = ['organization', items[0].organization];
  }
  let whole = { ...wanted, kind, id };
  if (whole.start === null) {
    const used = await usedDays(whole, signal);
    const today = new Date().toISOString().slice(0, 10);
    whole = { ...whole, ...lastDays(used ?? { start: today, end: today }, 28) };
  }
  return whole.every === null || countBuckets(whole) > MOST_BUCKETS ? fitted(whole) : whole;
}

/** The first and last day with usage; asked once for each subject and time zone. */
async function usedDays(subject, signal) {
  const name = JSON.stringify([subject.kind, subject.id, subject.tz]);
  if (known.for !== name) known = { for: name, days: await extent(subject, signal) };
  return known.days;
}

function pick(from, to) {
  const interval = daysBetween(from, to, view.tz);
  if (interval.start === view.start && interval.end === view.end) return;
  go(fitted({ ...view, ...interval }));
}

// --- Showing --------------------------------------------------------------------------------------------------

function showControls() {
  const { kind, id, start, end, every, tz } = view;
  $('view').hidden = false;
  document.title = `${id} · simusage`;
  $('kind').textContent = kind === 'organization' ? 'Organization' : 'SIM card';
  $('subject').textContent = id;
  $('owner').hidden = true;
  $('link').href = link(view);
  $('start').value = start;
  $('end').value = end;
  const count = String(days(view));
  const last = known.for === JSON.stringify([kind, id, tz]) ? known.days : null;
  const presets = [...document.querySelectorAll('[data-days]')];
  // All time can be 28 days long, too; one button at most is pressed.
  const pressed =
    presets.find(({ dataset }) => dataset.days === count && (last === null || last.end === end)) ??
    presets.find(({ dataset }) => dataset.days === 'all' && last?.start === start && last.end === end);
  for (const preset of presets) preset.setAttribute('aria-pressed', String(preset === pressed));
  const choices = EVERY.includes(every) ? EVERY : [every, ...EVERY];
  $('every').replaceChildren(
    ...choices.map((choice) => {
      const option = new Option(format.bucketName(choice), choice, choice === every, choice === every);
      // What would be too many bars cannot be chosen.
      option.disabled = choice !== every && countBuckets({ ...view, every: choice }) > MOST_BUCKETS;
      return option;
    }),
  );
  if (![...$('tz').options].some((option) => option.value === tz)) $('tz').prepend(new Option(tz, tz));
  $('tz').value = tz;
  $('chart-title').textContent = `Bytes per ${format.bucketName(every)}`;
  $('bucket-name').textContent = capital(format.bucketName(every));
}

async function showSeries(signal) {
  $('notice').hidden = true;
  let answer;
  try {
    answer = await series(view, signal);
  } catch (error) {
    if (signal.aborted) return;
    clearSeries();
    notice(error.title ?? 'Something went wrong', error.message, 'Try again', () => go(view, { replace: true }));
    say(`${error.title}: ${error.message}`);
    return;
  }
  if (signal.aborted) return;
  const [start, end] = [Date.parse(answer.start), Date.parse(answer.end)];
  const buckets = answer.items.map((item, index) => ({
    // The first bucket may have begun before the interval.
    start: Math.max(start, Date.parse(item.date)),
    end: bucketEnd(item, answer.items[index + 1], view.every, end),
    bytes: item['bytes-used-total'],
    records: item.records,
  }));
  const through = answer['complete-through'];
  shown = { buckets, answer };
  showFigures(answer, buckets);
  showRows();
  if (buckets.every(({ records }) => records === 0)) {
    chart.clear();
    $('chart').hidden = true;
    await showNothing(signal);
    return;
  }
  $('chart').hidden = false;
  chart.show({ buckets, start, end, every: view.every, tz: view.tz, complete: through ? Date.parse(through) : null });
  performance.mark('chart');
  hover(null);
  say(`${view.id}: ${format.bytes(answer['bytes-used-total'])} in ${format.whole(records(buckets))} records.`);
}

/** The subject has nothing in this interval; it may have elsewhere. */
async function showNothing(signal) {
  const interval =
    view.start === view.end
      ? `on ${plainDate(view.start)}`
      : `between ${plainDate(view.start)} and ${plainDate(view.end)}`;
  const sentence = `${view.id} used nothing ${interval}.`;
  say(sentence);
  notice('No usage', sentence);
  const used = await usedDays(view, signal).catch(() => null);
  if (signal.aborted || !used) return;
  notice('No usage', `${sentence} Its last usage was on ${plainDate(used.end)}.`, 'Go there', () =>
    go(fitted({ ...view, ...lastDays(used, Math.max(1, days(view))) })),
  );
}

function records(buckets) {
  return buckets.reduce((sum, bucket) => sum + BigInt(bucket.records), 0n);
}

function showFigures(answer, buckets) {
  const total = answer['bytes-used-total'];
  $('total').textContent = format.bytes(total);
  $('total-exact').textContent = Number(total) < 1000 ? '' : `${format.whole(total)} bytes`;
  $('records').textContent = format.whole(records(buckets));
  const { length } = buckets.filter((bucket) => bucket.records > 0);
  const name = format.bucketName(view.every);
  $('records-note').textContent = length === 0 ? '' : `in ${format.whole(length)} ${plural(length, name)}`;
  const busiest = buckets.reduce(
    (most, bucket) => (most === null || BigInt(bucket.bytes) > BigInt(most.bytes) ? bucket : most),
    null,
  );
  $('busiest-name').textContent = `Busiest ${name}`;
  $('busiest').textContent = busiest ? format.bytes(busiest.bytes) : '–';
  $('busiest-note').textContent = busiest ? format.bucket(busiest, view.every, view.tz) : '';
  const through = answer['complete-through'];
  $('complete-figure').hidden = through === undefined;
  $('complete').textContent = through ? format.dateTime(Date.parse(through), view.tz) : 'Nothing yet';
  const ingested = answer['last-ingested-at'];
  $('complete-note').textContent = ingested ? `last ingest ${format.ago(Date.parse(ingested))}` : '';
}

const plural = (count, name) => (count === 1 ? name : /\d/.test(name) ? `buckets of ${name}` : `${name}s`);

/** The table is filled while it is open only: it can have thousands of rows. */
function showRows() {
  const buckets = $('numbers').open && shown ? shown.buckets : [];
  $('numbers').hidden = !shown || shown.buckets.length === 0;
  $('rows').replaceChildren(
    ...buckets.map((bucket) => {
      const row = document.createElement('tr');
      const head = cell('th', format.bucket(bucket, view.every, view.tz));
      head.scope = 'row';
      row.append(
        head,
        cell('td', format.whole(bucket.bytes), 'number'),
        cell('td', format.whole(bucket.records), 'number'),
      );
      return row;
    }),
  );
}

function cell(tag, text, className = '') {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function clearSeries() {
  shown = null;
  chart.clear();
  $('chart').hidden = true;
  for (const id of ['total', 'records', 'busiest']) $(id).textContent = '–';
  for (const id of ['total-exact', 'records-note', 'busiest-note']) $(id).textContent = '';
  $('complete-figure').hidden = true;
  hover(null);
  showRows();
}

async function showTop(signal) {
  $('top').hidden = view.kind !== 'organization';
  if ($('top').hidden) return;
  try {
    const answer = await topSimCards(view, signal);
    if (signal.aborted) return;
    const most = Number(answer.items[0]?.['bytes-used-total'] ?? 0);
    $('top-rows').replaceChildren(...answer.items.map((item) => topRow(item, most)));
    $('top-count').textContent =
      answer.total > answer.items.length ? `${answer.items.length} of ${format.whole(answer.total)}` : '';
    $('top-note').hidden = answer.items.length > 0;
    $('top-note').textContent = 'No SIM card used anything in this interval.';
  } catch (error) {
    if (signal.aborted) return;
    // The chart's place says already that there is no such organization.
    $('top').hidden = error.status === 404;
    $('top-rows').replaceChildren();
    $('top-count').textContent = '';
    $('top-note').hidden = false;
    $('top-note').textContent = error.message;
  }
}

function topRow(item, most) {
  const row = document.createElement('tr');
  const subject = { ...view, kind: 'simcard', id: item.simcard };
  const head = cell('th', '');
  head.scope = 'row';
  head.append(inPage(Object.assign(document.createElement('a'), { href: link(subject), textContent: item.simcard })));
  const share = cell('td', '', 'share');
  const bar = document.createElement('i');
  bar.style.width = `${most > 0 ? Math.max(0.5, (Number(item['bytes-used-total']) / most) * 100) : 0}%`;
  share.append(bar);
  const used = cell('td', format.bytes(item['bytes-used-total']), 'number');
  used.title = `${format.whole(item['bytes-used-total'])} bytes`;
  row.append(head, share, used, cell('td', format.whole(item.records), 'number records'));
  return row;
}

/** Whose SIM card it is. It is told where it is known, and left out where not. */
async function showOwner(signal) {
  if (view.kind !== 'simcard') return;
  const assignments = await inventory({ q: view.id, size: 10 }, signal).catch(() => ({ items: [] }));
  const owner = assignments.items.findLast(({ simcard }) => simcard === view.id)?.organization;
  if (signal.aborted || !owner) return;
  const subject = { ...view, kind: 'organization', id: owner };
  $('owner').hidden = false;
  $('owner-link').textContent = owner;
  $('owner-link').href = link(subject);
}

/** Links of the page's own go somewhere without loading the page anew. */
function inPage(anchor) {
  anchor.addEventListener('click', (event) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(read(new URL(anchor.href).search));
  });
  return anchor;
}

function hover(index) {
  const bucket = index === null ? null : shown?.buckets[index];
  const text = bucket
    ? `${format.bucket(bucket, view.every, view.tz)}: ${format.bytes(bucket.bytes)}, ${format.whole(bucket.records)} ${BigInt(bucket.records) === 1n ? 'record' : 'records'}`
    : '';
  $('readout').textContent = text;
  // With the keyboard there is no pointer that says where one is.
  if (bucket && document.activeElement === $('chart')) say(text);
}

// --- States ---------------------------------------------------------------------------------------------------

let slow = null;

/** Says that something is under way, if it takes long enough to be noticed. */
function busy(is) {
  clearTimeout(slow);
  $('main').setAttribute('aria-busy', String(is));
  if (is) {
    slow = setTimeout(() => document.body.classList.add('loading'), 150);
  } else {
    document.body.classList.remove('loading');
  }
}

function say(sentence) {
  $('status').textContent = sentence;
}

function notice(title, detail, action = null, act = null) {
  $('notice').hidden = false;
  $('notice-title').textContent = title;
  $('notice-detail').textContent = detail;
  $('notice-action').hidden = action === null;
  $('notice-action').textContent = action ?? '';
  $('notice-action').onclick = act;
}

/** Nothing can be shown at all. */
function fail(error, again) {
  if (!(error instanceof Problem)) console.error(error);
  $('view').hidden = true;
  $('failure').hidden = false;
  $('failure-title').textContent = error.title ?? 'Something went wrong';
  $('failure-detail').textContent = error.message;
  $('failure-action').onclick = again;
}

function welcome() {
  $('view').hidden = true;
  $('welcome').hidden = false;
  document.title = 'simusage';
}

let toastTimer = null;

function toast(sentence) {
  clearTimeout(toastTimer);
  $('toast').hidden = false;
  $('toast').textContent = sentence;
  toastTimer = setTimeout(() => {
    $('toast').hidden = true;
  }, 6_000);
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const plainDate = (day) => format.date(Date.parse(day), 'UTC');

// --- Controls -------------------------------------------------------------------------------------------------

for (const button of document.querySelectorAll('[data-days]')) {
  button.addEventListener('click', async () => {
    try {
      // Since it was last asked for there may be a new last day.
      known = { for: null, days: null };
      const used = await usedDays(view, underWay.signal);
      const count = button.dataset.days === 'all' ? 'all' : Number(button.dataset.days);
      if (used) go(fitted({ ...view, ...lastDays(used, count) }));
      else toast(`${view.id} has no usage yet.`);
    } catch (error) {
      if (!underWay.signal.aborted) toast(error.message);
    }
  });
}

for (const [id, direction] of [
  ['earlier', -1],
  ['later', 1],
]) {
  $(id).addEventListener('click', () => go({ ...view, ...shifted(view, direction) }));
}

for (const id of ['start', 'end']) {
  $(id).addEventListener('change', () => {
    const [start, end] = [$('start'), $('end')];
    const crossed = start.value && end.value && start.value > end.value;
    end.setCustomValidity(crossed ? 'The last day is before the first.' : '');
    if ($('controls').reportValidity()) go(fitted({ ...view, start: start.value, end: end.value }));
  });
}
$('controls').addEventListener('submit', (event) => event.preventDefault());
$('every').addEventListener('change', () => go({ ...view, every: $('every').value }));
$('tz').addEventListener('change', () => go({ ...view, tz: $('tz').value }));
$('numbers').addEventListener('toggle', showRows);
$('look-again').addEventListener('click', () => go(read(location.search), { replace: true }));
inPage($('owner-link'));

$('csv').addEventListener('click', async () => {
  const { id, start, end, every } = view;
  $('csv').disabled = true;
  try {
    const anchor = document.createElement('a');
    anchor.href = URL.createObjectURL(await csv(view));
    anchor.download = `usage-${id.replace(/[^\w.-]/g, '_')}-${start}-${end}-${every}.csv`;
    anchor.click();
    // The browser has begun to read it by then.
    setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
  } catch (error) {
    toast(`${error.title}: ${error.message}`);
  } finally {
    $('csv').disabled = false;
  }
});

$('link').addEventListener('click', async (event) => {
  // Without the clipboard, which is for secure pages only, it is a link like any other.
  if (!navigator.clipboard || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  try {
    await navigator.clipboard.writeText($('link').href);
    toast('The link is copied.');
  } catch {
    toast('The browser does not let the page copy; the address bar has the link.');
  }
});

document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest('input, select, textarea, dialog')) return;
  event.preventDefault();
  $('search').focus();
});

addEventListener('popstate', () => go(read(location.search), { replace: true }));

// --- Theme ----------------------------------------------------------------------------------------------------

const systemDark = matchMedia('(prefers-color-scheme: dark)');

function themeName() {
  return document.documentElement.dataset.theme ?? (systemDark.matches ? 'dark' : 'light');
}

function nameThemeButton() {
  $('theme').setAttribute('aria-label', themeName() === 'dark' ? 'Light theme' : 'Dark theme');
}

$('theme').addEventListener('click', () => {
  const other = themeName() === 'dark' ? 'light' : 'dark';
  const followsSystem = other === (systemDark.matches ? 'dark' : 'light');
  // Back at what the system says, the page follows the system again.
  if (followsSystem) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = other;
  try {
    if (followsSystem) localStorage.removeItem('simusage.theme');
    else localStorage.setItem('simusage.theme', other);
  } catch {
    // Then it is for this page only.
  }
  nameThemeButton();
  chart.redraw();
});
systemDark.addEventListener('change', nameThemeButton);

// --- Token ----------------------------------------------------------------------------------------------------

/** Asks for a token. Resolves to null where the user has none. */
function askForToken(wrong) {
  const dialog = $('token');
  $('token-value').value = '';
  $('token-wrong').hidden = !wrong;
  $('token-wrong').textContent = wrong || '';
  dialog.showModal();
  return new Promise((resolve) => {
    const end = (value) => {
      dialog.onclose = $('token-form').onsubmit = $('token-cancel').onclick = null;
      dialog.close();
      $('forget').hidden = value === null && token() === null;
      resolve(value);
    };
    $('token-form').onsubmit = (event) => {
      event.preventDefault();
      search.forget();
      end($('token-value').value.trim() || null);
    };
    $('token-cancel').onclick = () => end(null);
    // Escape closes it, too.
    dialog.onclose = () => end(null);
  });
}

onTokenNeeded(askForToken);
$('forget').hidden = token() === null;
$('forget').addEventListener('click', () => {
  forgetToken();
  search.forget();
  known = { for: null, days: null };
  $('forget').hidden = true;
  toast('The token is forgotten.');
});

// --- Start ----------------------------------------------------------------------------------------------------

function fillTimeZones() {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const all = Intl.supportedValuesOf('timeZone').filter((zone) => zone !== 'UTC');
  const options = (zones) => zones.map((zone) => new Option(zone.replaceAll('_', ' '), zone));
  const group = document.createElement('optgroup');
  group.label = 'All time zones';
  group.append(...options(all.filter((zone) => zone !== own)));
  $('tz').append(...options(['UTC', ...(own && own !== 'UTC' ? [own] : [])]), group);
}

fillTimeZones();
nameThemeButton();
go(read(location.search), { replace: true });
