// Formats numbers, dates and granularities for display.

import { granularity, supportedTimeZone } from './calendar.js';

const LOCALE = 'en-GB';
const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];

/** A whole number with thousands separators, exact up to 64 bits. */
export function whole(value) {
  return BigInt(value).toLocaleString(LOCALE);
}

/** A number and its noun, as in `2 records`. */
export function counted(value, noun) {
  return `${whole(value)} ${BigInt(value) === 1n ? noun : `${noun}s`}`;
}

/** A number of bytes to three significant digits; null if it exceeds 64 bits. */
export function bytes(value) {
  if (value === null) return 'over 9.22 EB';
  const number = Number(value);
  const power = unitPower(number);
  if (power === 0) return number === 1 ? '1 byte' : `${number} bytes`;
  const scaled = number / 1000 ** power;
  const digits = scaled < 10 ? 2 : scaled < 100 ? 1 : 0;
  // 999.96 MB rounds to 1000 MB, which the next unit shows with three digits.
  const text = scaled.toFixed(digits);
  if (Number(text) >= 1000 && power < UNITS.length - 1) return `1.00 ${UNITS[power + 1]}`;
  return `${text} ${UNITS[power]}`;
}

/** Axis labels, all in the same unit. */
export function axisBytes(splits) {
  const power = unitPower(Math.max(...splits));
  return splits.map((split) => {
    if (split === 0) return '0';
    const scaled = Number((split / 1000 ** power).toPrecision(3));
    return power === 0 ? `${scaled} B` : `${scaled} ${UNITS[power]}`;
  });
}

/** The index in `UNITS` of the unit that suits a number of bytes. */
function unitPower(number) {
  return number < 1000 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(number) / 3));
}

const formats = new Map();

function format(tz, options) {
  const key = JSON.stringify([tz, options]);
  if (!formats.has(key)) {
    const timeZone = supportedTimeZone(tz);
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

/** The time since an instant, as in `3 minutes ago`. */
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

/** The name of one bucket, as in `day` or `6 hours`. */
export function bucketName(every) {
  const { count, unit } = granularity(every);
  return count === 1 ? unit : `${count} ${unit}s`;
}

/** A number of buckets, as in `7 days` or `28 buckets of 6 hours`. */
export function bucketCount(value, every) {
  const { count, unit } = granularity(every);
  return count === 1 ? counted(value, unit) : `${counted(value, 'bucket')} of ${bucketName(every)}`;
}

/** The time that a bucket covers. */
export function bucket({ start, end }, every, tz) {
  const { count, unit } = granularity(every);
  if (unit === 'hour') return `${weekday(start, tz)} ${date(start, tz)}, ${time(start, tz)} – ${time(end, tz)}`;
  if (unit === 'month' && count === 1) return month(start, tz);
  if (unit === 'day' && count === 1) return `${weekday(start, tz)} ${date(start, tz)}`;
  return `${date(start, tz)} – ${date(end - 1, tz)}`;
}
