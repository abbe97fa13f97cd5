// Writes loaded usage into the page: headings, figures and tables.

import { $, element } from './dom.js';
import * as format from './format.js';
import { viewQuery } from './view.js';

const UNKNOWN = '–';

/** Shows the headings of a view before its data is loaded. */
export function renderHeadings(view) {
  const name = format.bucketName(view.every);
  document.title = `${view.id} · simusage`;
  $('kind').textContent = view.kind === 'organization' ? 'Organization' : 'SIM card';
  $('subject').textContent = view.id;
  $('owner').hidden = true;
  $('chart-title').textContent = `Bytes per ${name}`;
  $('bucket-name').textContent = name[0].toUpperCase() + name.slice(1);
}

/** Shows which organization a SIM card belongs to, or will belong to, or belonged to. */
export function renderOwner(view, { assignment, when }) {
  const day = (instant) => format.date(Date.parse(instant), view.tz);
  const [before, after] = {
    now: () => ['Belongs to', ''],
    later: () => ['Belongs to no organization today, and to', `from ${day(assignment['valid-from'])} on`],
    before: () => ['Belonged to', `until ${day(assignment['valid-until'])}`],
  }[when]();
  $('owner').hidden = false;
  $('owner-before').textContent = before;
  $('owner-link').textContent = assignment.organization;
  $('owner-link').href = viewQuery({ ...view, kind: 'organization', id: assignment.organization });
  $('owner-after').textContent = after;
}

/** The number of records in all buckets, as a BigInt. */
export function totalRecords(buckets) {
  return buckets.reduce((sum, { records }) => sum + BigInt(records), 0n);
}

export function renderFigures(view, answer, buckets) {
  const total = answer['bytes-used-total'];
  $('total').textContent = format.bytes(total);
  $('total-exact').textContent = Number(total) < 1000 ? '' : `${format.whole(total)} bytes`;
  $('records').textContent = format.whole(totalRecords(buckets));
  const used = buckets.filter(({ records }) => records > 0).length;
  $('records-note').textContent = used === 0 ? '' : `in ${format.bucketCount(used, view.every)}`;
  renderBusiest(view, buckets);
  renderFreshness(view, answer);
}

function renderBusiest(view, buckets) {
  const busiest = buckets.reduce(
    (most, bucket) => (most === null || BigInt(bucket.bytes) > BigInt(most.bytes) ? bucket : most),
    null,
  );
  $('busiest-name').textContent = `Busiest ${format.bucketName(view.every)}`;
  $('busiest').textContent = busiest ? format.bytes(busiest.bytes) : UNKNOWN;
  $('busiest-note').textContent = busiest ? format.bucket(busiest, view.every, view.tz) : '';
}

function renderFreshness(view, { 'complete-through': through, 'last-ingested-at': ingested }) {
  $('complete-figure').hidden = through === undefined;
  $('complete').textContent = through ? format.dateTime(Date.parse(through), view.tz) : 'Nothing yet';
  $('complete-note').textContent = ingested ? `last ingest ${format.ago(Date.parse(ingested))}` : '';
}

export function clearFigures() {
  for (const id of ['total', 'records', 'busiest']) $(id).textContent = UNKNOWN;
  for (const id of ['total-exact', 'records-note', 'busiest-note']) $(id).textContent = '';
  $('complete-figure').hidden = true;
}

/** Lists the buckets in the table below the chart, which can be long and is empty while closed. */
export function renderTable(view, buckets) {
  $('numbers').hidden = buckets.length === 0;
  const listed = $('numbers').open ? buckets : [];
  $('rows').replaceChildren(
    ...listed.map((bucket) =>
      element(
        'tr',
        {},
        element('th', { scope: 'row' }, format.bucket(bucket, view.every, view.tz)),
        element('td', { class: 'number' }, format.whole(bucket.bytes)),
        element('td', { class: 'number' }, format.whole(bucket.records)),
      ),
    ),
  );
}

/** Lists the SIM cards of an organization with the highest usage. */
export function renderTop(view, { items, total }) {
  const most = bytesOf(items[0]);
  $('top-rows').replaceChildren(...items.map((item) => topRow(view, item, most)));
  $('top-count').textContent = total > items.length ? `${items.length} of ${format.whole(total)}` : '';
  $('top-note').hidden = items.length > 0;
  $('top-note').textContent = 'No SIM card has usage in this interval.';
}

/** The bytes of an item; those of one that exceeds 64 bits count as 2⁶³. */
function bytesOf(item) {
  return Number(item?.['bytes-used-total'] ?? (item ? 2 ** 63 : 0));
}

function topRow(view, { simcard, records, 'bytes-used-total': used }, most) {
  const href = viewQuery({ ...view, kind: 'simcard', id: simcard });
  const bar = element('i');
  bar.style.width = `${most > 0 ? Math.max(0.5, (bytesOf({ 'bytes-used-total': used }) / most) * 100) : 0}%`;
  return element(
    'tr',
    {},
    element('th', { scope: 'row' }, element('a', { href, 'data-view': '' }, simcard)),
    element('td', { class: 'share' }, bar),
    element('td', { class: 'number', title: used === null ? '' : `${format.whole(used)} bytes` }, format.bytes(used)),
    element('td', { class: 'number records' }, format.whole(records)),
  );
}

/** Shows an error in place of the SIM cards. */
export function renderTopError(error) {
  // The chart's notice already reports an unknown organization.
  $('top').hidden = error.status === 404;
  $('top-rows').replaceChildren();
  $('top-count').textContent = '';
  $('top-note').hidden = false;
  $('top-note').textContent = error.message;
}
