// What is looked at: whose usage, over which days, by what, in which time zone. The address says all of it, in the
// API's own words, so that a link brings back what was seen.

import { granularity, isTimeZone } from './format.js';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const DATE = /^(19[7-9]\d|20\d\d|21\d\d)-\d\d-\d\d$/;

/** More bars than this are nothing to look at, and several pages to fetch. */
export const MOST_BUCKETS = 3_000;

/** What can be chosen. */
export const EVERY = ['1hour', '6hour', '1day', '1week', '1month'];

const HOURS = { hour: 1, day: 24, week: 168, month: 730 };

const instant = (date) => Date.parse(`${date}T00:00:00Z`);
const written = (time) => new Date(time).toISOString().slice(0, 10);

function isDate(text) {
  return DATE.test(text ?? '') && !Number.isNaN(instant(text)) && written(instant(text)) === text;
}

/** Reads an address. What it does not say, or says wrongly, is null. */
export function read(search) {
  const parameters = new URLSearchParams(search);
  const organization = parameters.get('organization');
  const simcard = parameters.get('simcard');
  const [start, end] = [parameters.get('start'), parameters.get('end')];
  const whole = isDate(start) && isDate(end) && start <= end;
  const every = parameters.get('every');
  return {
    kind: organization ? 'organization' : simcard ? 'simcard' : null,
    id: organization || simcard || null,
    start: whole ? start : null,
    end: whole ? end : null,
    every: /^[1-9]\d{0,3}(hour|day|week|month)$/.test(every ?? '') ? every : null,
    tz: parameters.get('tz') || 'UTC',
  };
}

/** The address of a view. */
export function link({ kind, id, start, end, every, tz }) {
  const parameters = new URLSearchParams();
  if (kind) parameters.set(kind, id);
  for (const [name, value] of Object.entries({ start, end, every })) if (value) parameters.set(name, value);
  if (tz !== 'UTC') parameters.set('tz', tz);
  // A slash may stand in a query, and a time zone reads better with it.
  return `?${parameters.toString().replaceAll('%2F', '/')}`;
}

/** How many days an interval has. */
export function days({ start, end }) {
  return Math.round((instant(end) - instant(start)) / DAY) + 1;
}

/** How many buckets an interval has, more or less. */
export function buckets(view) {
  const { count, unit } = granularity(view.every);
  return Math.ceil((days(view) * 24) / (HOURS[unit] * count));
}

/** The granularity that shows an interval best. */
export function fitting(interval) {
  const length = days(interval);
  if (length <= 7) return '1hour';
  return length <= 400 ? '1day' : '1month';
}

/** The view with a granularity that fits its interval: its own, if that shows something. */
export function fitted(view) {
  const count = view.every ? buckets(view) : 0;
  return count >= 8 && count <= 400 ? view : { ...view, every: fitting(view) };
}

/** The last so many days of an extent, or all of it. */
export function lastDays(extent, count) {
  if (count === 'all') return extent;
  const start = Math.max(instant('1970-01-01'), instant(extent.end) - (count - 1) * DAY);
  return { start: written(start), end: extent.end };
}

/** The interval before or after. */
export function shifted({ start, end }, direction) {
  const by = days({ start, end }) * DAY * direction;
  const [from, to] = [instant(start) + by, instant(end) + by];
  if (from < instant('1970-01-01') || to > instant('2199-12-31')) return { start, end };
  return { start: written(from), end: written(to) };
}

/** The days that lie between two instants, in a time zone. */
export function daysBetween(start, end, tz) {
  const timeZone = isTimeZone(tz) ? tz : 'UTC';
  // Swedish writes dates as the API does.
  const date = new Intl.DateTimeFormat('sv-SE', { timeZone, year: 'numeric', month: '2-digit', day: '2-digit' });
  return { start: date.format(start), end: date.format(Math.max(start, end - 1)) };
}

/** When a bucket ends: when its time is over, and at the latest where the next one or the end of the interval is. */
export function bucketEnd(item, next, every, end) {
  const { count, unit } = granularity(every);
  const [year, month] = item.date.split('-').map(Number);
  const length =
    unit === 'month' ? Date.UTC(year, month - 1 + count) - Date.UTC(year, month - 1) : HOURS[unit] * count * HOUR;
  return Math.min(Date.parse(item.date) + length, next ? Date.parse(next.date) : Infinity, end);
}
