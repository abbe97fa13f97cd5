// A view: subject, interval, granularity and time zone, as the page's URL contains them.

import { DAY, FIRST_DATE, LAST_DATE, bucketHours, fromDate, isDate, toDate } from './calendar.js';

/** More bars would be unreadable, and would need several pages of the API. */
export const MAX_BUCKETS = 3_000;

/** The granularities that the page offers. */
export const GRANULARITIES = ['1hour', '6hour', '1day', '1week', '1month'];

/** Parses the query string of the page. Missing and invalid parts are null. */
export function parseView(search) {
  const parameters = new URLSearchParams(search);
  const organization = parameters.get('organization');
  const simcard = parameters.get('simcard');
  const [start, end] = [parameters.get('start'), parameters.get('end')];
  const valid = isDate(start) && isDate(end) && start <= end;
  const every = parameters.get('every');
  return {
    kind: organization ? 'organization' : simcard ? 'simcard' : null,
    id: organization || simcard || null,
    start: valid ? start : null,
    end: valid ? end : null,
    every: /^[1-9]\d{0,3}(hour|day|week|month)$/.test(every ?? '') ? every : null,
    tz: parameters.get('tz') || 'UTC',
  };
}

/** The query string of a view. */
export function viewQuery({ kind, id, start, end, every, tz }) {
  const parameters = new URLSearchParams();
  if (kind) parameters.set(kind, id);
  for (const [name, value] of Object.entries({ start, end, every })) if (value) parameters.set(name, value);
  if (tz !== 'UTC') parameters.set('tz', tz);
  // A query string may contain slashes, and time zones are easier to read with them.
  return `?${parameters.toString().replaceAll('%2F', '/')}`;
}

/** The number of days in an interval. */
export function dayCount({ start, end }) {
  return Math.round((fromDate(end) - fromDate(start)) / DAY) + 1;
}

/** The approximate number of buckets in a view. */
export function bucketCount(view) {
  return Math.ceil((dayCount(view) * 24) / bucketHours(view.every));
}

/** Replaces a view's granularity if it gives too few or too many bars for the interval. */
export function withReadableGranularity(view) {
  const count = view.every ? bucketCount(view) : 0;
  return count >= 8 && count <= 400 ? view : { ...view, every: defaultGranularity(view) };
}

function defaultGranularity(interval) {
  const count = dayCount(interval);
  if (count <= 7) return '1hour';
  return count <= 400 ? '1day' : '1month';
}

/** The last `count` days of an extent, without outliers; all of it if `count` is 'all'. */
export function lastDays({ kept, start: first, end, latest }, count) {
  if (count === 'all') return { start: first, end };
  const start = Math.max(fromDate(kept), fromDate(latest) - (count - 1) * DAY);
  return { start: toDate(start), end: latest };
}

/** The next (`direction` 1) or previous (-1) interval of the same length. */
export function adjacentInterval({ start, end }, direction) {
  const offset = dayCount({ start, end }) * DAY * direction;
  const [from, to] = [fromDate(start) + offset, fromDate(end) + offset];
  if (from < fromDate(FIRST_DATE) || to > fromDate(LAST_DATE)) return { start, end };
  return { start: toDate(from), end: toDate(to) };
}
