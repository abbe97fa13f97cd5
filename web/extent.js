// The extent of a subject's usage: the first and last day with records. Caches the latest result.

import { seriesPage } from './api.js';
import { FIRST_DATE, HOUR, LAST_DATE, datesBetween, endOfMonth } from './calendar.js';

let cache = { key: null, extent: null };

const cacheKey = ({ kind, id, tz }) => JSON.stringify([kind, id, tz]);

/** The extent { start, end } in the subject's time zone, or null without usage. */
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

/** Requests months, then days, in UTC, because the database has daily totals for UTC days only. */
async function loadExtent(subject, signal) {
  const request = (parameters) => seriesPage(subject, parameters, signal);
  const date = (item) => item.date.slice(0, 10);
  const daysOfMonth = async (start) => {
    const { items } = await request({ start, end: endOfMonth(start), every: '1day', size: 31 });
    return items.map(date);
  };
  const hoursOfDay = async (day) => (await request({ start: day, end: day, every: '1hour', size: 24 })).items;
  const months = (await request({ start: FIRST_DATE, end: LAST_DATE, every: '1month', size: 1000 })).items.map(date);
  if (months.length === 0) return null;
  const [firstDays, lastDays] = await Promise.all([daysOfMonth(months[0]), daysOfMonth(months.at(-1))]);
  const [start, end] = [firstDays[0], lastDays.at(-1)];
  if (subject.tz === 'UTC') return { start, end };
  // In another time zone, the first and last hour can fall on the day before or after.
  const [firstHours, lastHours] = await Promise.all([hoursOfDay(start), hoursOfDay(end)]);
  return datesBetween(Date.parse(firstHours[0].date), Date.parse(lastHours.at(-1).date) + HOUR, subject.tz);
}
