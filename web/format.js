// How numbers, dates and granularities are written for people.

const LOCALE = 'en-GB';
const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];

/** A whole number with separators, exact up to 64 bits. */
export function whole(value) {
  return BigInt(value).toLocaleString(LOCALE);
}

/** A count of bytes in three or four digits. */
export function bytes(value) {
  const number = Number(value);
  const power = number < 1000 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(number) / 3));
  if (power === 0) return number === 1 ? '1 byte' : `${number} bytes`;
  const scaled = number / 1000 ** power;
  const digits = scaled < 10 ? 2 : scaled < 100 ? 1 : 0;
  // 999.96 MB has four digits where it is rounded, and so the next unit.
  const text = scaled.toFixed(digits);
  if (Number(text) >= 1000 && power < UNITS.length - 1) return `1.00 ${UNITS[power + 1]}`;
  return `${text} ${UNITS[power]}`;
}

/** Labels of an axis: one unit for all, so that they can be compared. */
export function axisBytes(splits) {
  const top = Math.max(...splits);
  const power = top < 1000 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(top) / 3));
  return splits.map((split) => {
    if (split === 0) return '0';
    const scaled = Number((split / 1000 ** power).toPrecision(3));
    return power === 0 ? `${scaled} B` : `${scaled} ${UNITS[power]}`;
  });
}

/** Whether browsers know the time zone. */
export function isTimeZone(tz) {
  try {
    return Boolean(new Intl.DateTimeFormat(LOCALE, { timeZone: tz }));
  } catch {
    return false;
  }
}

const formats = new Map();

function format(tz, options) {
  const key = JSON.stringify([tz, options]);
  if (!formats.has(key)) {
    // The server says what is wrong with a time zone that does not exist; here it must not break anything.
    const timeZone = isTimeZone(tz) ? tz : 'UTC';
    formats.set(key, new Intl.DateTimeFormat(LOCALE, { timeZone, hourCycle: 'h23', ...options }));
  }
  return formats.get(key);
}

export const dayMonth = (instant, tz) => format(tz, { day: 'numeric', month: 'short' }).format(instant);
export const monthYear = (instant, tz) => format(tz, { month: 'short', year: 'numeric' }).format(instant);
export const time = (instant, tz) => format(tz, { hour: '2-digit', minute: '2-digit' }).format(instant);
export const date = (instant, tz) => format(tz, { day: 'numeric', month: 'short', year: 'numeric' }).format(instant);
const weekday = (instant, tz) => format(tz, { weekday: 'short' }).format(instant);
const month = (instant, tz) => format(tz, { month: 'long', year: 'numeric' }).format(instant);

export function dateTime(instant, tz) {
  return `${date(instant, tz)}, ${time(instant, tz)}`;
}

/** How long ago something was. */
export function ago(instant) {
  const seconds = (instant - Date.now()) / 1000;
  const relative = new Intl.RelativeTimeFormat(LOCALE, { numeric: 'auto' });
  for (const [unit, size] of [
    ['day', 86_400],
    ['hour', 3_600],
    ['minute', 60],
  ]) {
    if (Math.abs(seconds) >= size) return relative.format(Math.round(seconds / size), unit);
  }
  return 'just now';
}

/** Splits `6hour` into its number and unit. */
export function granularity(every) {
  const [, count, unit] = /^(\d+)(hour|day|week|month)$/.exec(every) ?? [null, '1', 'day'];
  return { count: Number(count), unit };
}

/** What one bucket is called. */
export function bucketName(every) {
  const { count, unit } = granularity(every);
  return count === 1 ? unit : `${count} ${unit}s`;
}

/** The time that a bucket spans. */
export function bucket({ start, end }, every, tz) {
  const { count, unit } = granularity(every);
  if (unit === 'hour') return `${weekday(start, tz)} ${date(start, tz)}, ${time(start, tz)} – ${time(end, tz)}`;
  if (unit === 'month' && count === 1) return month(start, tz);
  if (unit === 'day' && count === 1) return `${weekday(start, tz)} ${date(start, tz)}`;
  return `${date(start, tz)} – ${date(end - 1, tz)}`;
}
