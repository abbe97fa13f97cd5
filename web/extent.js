// The extent of a subject's usage: the first and last day with records, and the last one that is no
// outlier. Caches the latest result.

import { ofKept, seriesPage } from './api.js';
import { DAY, FIRST_DATE, HOUR, LAST_DATE, datesBetween, endOfMonth, fromDate, toDate } from './calendar.js';

/** Two months with fewer records than this share of the busiest month are outliers. */
const OUTLIER_SHARE = 0.01;

let cache = { key: null, extent: null };

const cacheKey = ({ kind, id, tz }) => JSON.stringify([kind, id, tz]);

/**
 * The extent { kept, start, end, latest } in the subject's time zone, or null without usage. Days before `kept`
 * have been dropped. `latest` ignores records of the future, and a few that are long after all others: devices
 * with wrong clocks write such.
 */
export async function extent(subject, signal) {
  const key = cacheKey(subject);
  if (cache.key !== key) cache = { key, extent: await loadExtent(subject, signal) };
  return cache.extent;
}

/** The extent if it is cached, otherwise null. */
export function cachedExtent(subject) {
  return cache.key === cacheKey(subject) ? cache.extent : null;
}

export function clearExtent() {
  cache = { key: null, extent: null };
}

/** The last month that is no outlier. */
function latestMonth(months) {
  const most = Math.max(...months.map(({ records }) => records));
  const recordsOf = new Map(months.map(({ date, records }) => [date.slice(0, 7), records]));
  const isUsual = ({ date, records }) => {
    const before = toDate(fromDate(date.slice(0, 10)) - DAY).slice(0, 7);
    return records + (recordsOf.get(before) ?? 0) >= most * OUTLIER_SHARE;
  };
  return months.findLast(isUsual).date.slice(0, 10);
}

/** Requests months, then days, in UTC, because the database has daily totals for UTC days only. */
async function loadExtent(subject, signal) {
  const request = (parameters) => ofKept(parameters, (kept) => seriesPage(subject, kept, signal));
  const date = (item) => item.date.slice(0, 10);
  const daysOfMonth = async (start) => {
    const { items } = await request({ start, end: endOfMonth(start), every: '1day', size: 31 });
    return items.map(date);
  };
  // The whole day, if its hours are no longer kept.
  const hoursOfDay = async (day) => {
    try {
      return (await request({ start: day, end: day, every: '1hour', size: 24 })).items;
    } catch (error) {
      if (!error.completeFrom) throw error;
      return [`${day}T00:00:00Z`, `${day}T23:00:00Z`].map((hour) => ({ date: hour }));
    }
  };
  const answer = await request({ start: FIRST_DATE, end: LAST_DATE, every: '1month', size: 1000 });
  const months = answer.items;
  // In other time zones, that day may begin before.
  const kept = answer.start.startsWith(FIRST_DATE)
    ? FIRST_DATE
    : toDate(fromDate(date({ date: answer.start })) + (subject.tz === 'UTC' ? 0 : DAY));
  if (months.length === 0) return null;
  // A clock may be a little ahead.
  const tomorrow = toDate(Date.now() + DAY);
  const past = months.filter((month) => date(month) <= tomorrow);
  const usual = latestMonth(past.length > 0 ? past : months);
  const [firstDays, latestDays, lastDays] = await Promise.all(
    [date(months[0]), usual, date(months.at(-1))].map(daysOfMonth),
  );
  const [start, end] = [firstDays[0], lastDays.at(-1)];
  const latest = latestDays.findLast((day) => day <= tomorrow) ?? latestDays.at(-1);
  if (subject.tz === 'UTC') return { kept, start, end, latest };
  // In another time zone, the first and last hour can fall on the day before or after.
  const [firstHours, latestHours, lastHours] = await Promise.all([start, latest, end].map(hoursOfDay));
  const from = Date.parse(firstHours[0].date);
  const until = ({ date: hour }) => datesBetween(from, Date.parse(hour) + HOUR, subject.tz);
  const last = until(lastHours.at(-1));
  return { kept, ...last, start: last.start < kept ? kept : last.start, latest: until(latestHours.at(-1)).end };
}
