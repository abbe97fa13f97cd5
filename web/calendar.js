// Calculates with dates (YYYY-MM-DD), instants (milliseconds since 1970), time zones and buckets.

export const HOUR = 3_600_000;
export const DAY = 24 * HOUR;

/** The range of dates that records can have. */
export const FIRST_DATE = '1970-01-01';
export const LAST_DATE = '2199-12-31';

// A month counts as its average length.
const HOURS = { hour: 1, day: 24, week: 168, month: 730 };
const DATE = /^(19[7-9]\d|20\d\d|21\d\d)-\d\d-\d\d$/;

/** The instant at which a date begins in UTC. */
export function fromDate(date) {
  return Date.parse(`${date}T00:00:00Z`);
}

/** The date of an instant in UTC. */
export function toDate(instant) {
  return new Date(instant).toISOString().slice(0, 10);
}

export function isDate(text) {
  return DATE.test(text ?? '') && !Number.isNaN(fromDate(text)) && toDate(fromDate(text)) === text;
}

/** The last date of the month that a date is in. */
export function endOfMonth(date) {
  const [year, month] = date.split('-').map(Number);
  return toDate(Date.UTC(year, month, 0));
}

/** The time zone, or UTC if the browser does not support it; the API reports unknown time zones. */
export function supportedTimeZone(tz) {
  try {
    new Intl.DateTimeFormat('en-GB', { timeZone: tz });
    return tz;
  } catch {
    return 'UTC';
  }
}

/** The first and last date of the time between two instants, in a time zone. */
export function datesBetween(start, end, tz) {
  const timeZone = supportedTimeZone(tz);
  // The Swedish format is YYYY-MM-DD.
  const date = new Intl.DateTimeFormat('sv-SE', { timeZone, year: 'numeric', month: '2-digit', day: '2-digit' });
  return { start: date.format(start), end: date.format(Math.max(start, end - 1)) };
}

/** Splits a granularity such as `6hour` into its count and unit. */
export function granularity(every) {
  const [, count, unit] = /^(\d+)(hour|day|week|month)$/.exec(every) ?? [null, '1', 'day'];
  return { count: Number(count), unit };
}

/** The hours in a bucket; approximate for months. */
export function bucketHours(every) {
  const { count, unit } = granularity(every);
  return HOURS[unit] * count;
}

/** When a bucket ends: after its width, or earlier, where the next begins or the interval ends. */
export function bucketEnd(item, next, every, intervalEnd) {
  const { count, unit } = granularity(every);
  const [year, month] = item.date.split('-').map(Number);
  const width =
    unit === 'month' ? Date.UTC(year, month - 1 + count) - Date.UTC(year, month - 1) : bucketHours(every) * HOUR;
  return Math.min(Date.parse(item.date) + width, next ? Date.parse(next.date) : Infinity, intervalEnd);
}
