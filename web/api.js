// Asks the public API: the token, the words of its problems, and numbers beyond 53 bits.

import { daysBetween } from './view.js';

const TOKEN = 'simusage.token';

/** A question that was not answered, in the server's words where it had some. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail);
    this.status = status;
    this.title = title;
  }
}

let askForToken = async () => null;
let asking = null;

/** Says who asks the user for a token: a function of a sentence (or nothing) that resolves to a token or null. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

// Storage can be forbidden altogether; then the token lives as long as the page.
let kept = null;

export function token() {
  try {
    return sessionStorage.getItem(TOKEN) ?? kept;
  } catch {
    return kept;
  }
}

function keep(value) {
  kept = value;
  try {
    sessionStorage.setItem(TOKEN, value);
  } catch {
    // It is kept above.
  }
}

export function forgetToken() {
  kept = null;
  try {
    sessionStorage.removeItem(TOKEN);
  } catch {
    // Nothing was stored.
  }
}

/** The address of a question, without parameters that are null. */
export function address(path, parameters = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url.href;
}

/** Numbers above 2^53 would lose their last digits, so they come as texts; `BigInt` reads both. */
function parse(text) {
  return JSON.parse(text.replace(/("bytes-used-total"\s*:\s*)(-?\d{16,})/g, '$1"$2"'));
}

async function problem(response) {
  const body = await response.json().catch(() => ({}));
  const title = body.title || response.statusText || `Status ${response.status}`;
  return new Problem(response.status, title, body.detail || 'The server gave no reason.');
}

/** One question at a time asks the user; the others wait for the same token. */
async function newToken(refused) {
  asking ??= askForToken(refused && 'This token was refused.').finally(() => {
    asking = null;
  });
  const value = await asking;
  if (value) keep(value);
  return value;
}

/** The response to a question. A 401 asks for a token, and then once more. */
export async function send(path, parameters, signal) {
  for (;;) {
    const used = token();
    let response;
    try {
      response = await fetch(address(path, parameters), {
        headers: used ? { authorization: `Bearer ${used}` } : {},
        signal,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Problem(0, 'The server does not answer', 'It may be restarting, or the network is away.');
    }
    if (response.ok) return response;
    const refusal = await problem(response);
    if (response.status !== 401) throw refusal;
    // Another question may have got a token while this one was under way.
    if (used === token() && !(await newToken(used !== null))) throw refusal;
    signal?.throwIfAborted();
  }
}

/** The JSON that answers a question. */
export async function ask(path, parameters, signal) {
  const response = await send(path, parameters, signal);
  return parse(await response.text());
}

const PAGE = 1000;

/** The path of a subject's time series. */
function seriesPath({ kind, id }) {
  return `api/v1/${kind}/${encodeURIComponent(id)}/usage`;
}

function seriesParameters({ start, end, every, tz }) {
  // The API's own time zone is left out, which keeps the address short.
  return { start, end, every, tz: tz === 'UTC' ? null : tz };
}

/** The whole series of a view: the first page, then the others at once. */
export async function series(view, signal) {
  const path = seriesPath(view);
  const parameters = { ...seriesParameters(view), size: PAGE };
  const first = await ask(path, parameters, signal);
  const rest = [];
  for (let page = 2; (page - 1) * PAGE < first.total; page += 1) {
    rest.push(ask(path, { ...parameters, page }, signal));
  }
  const others = await Promise.all(rest);
  return { ...first, items: [first, ...others].flatMap((answer) => answer.items) };
}

/** The same series as a file. */
export async function csv(view) {
  const response = await send(seriesPath(view), { ...seriesParameters(view), format: 'csv' });
  return response.blob();
}

/** The SIM cards of an organization with the most bytes. */
export function topSimCards({ id, start, end, tz }, signal) {
  return ask('api/v1/usage/simcards', { organization: id, ...seriesParameters({ start, end, tz }), size: 10 }, signal);
}

/** Organizations with usage, most bytes first. */
export function organizations(size, signal) {
  return ask('api/v1/usage/organizations', { size }, signal);
}

/** Assignments of SIM cards to organizations of which either identifier begins with `q`. */
export function inventory({ q, size }, signal) {
  return ask('api/v1/inventory', { q, size }, signal);
}

const HOUR = 3_600_000;
// What records can be dated.
const EVER = { start: '1970-01-01', end: '2199-12-31' };

/**
 * The first and the last day on which a subject has usage, in its time zone; null without any. It is asked for in UTC,
 * of which there are sums of whole days, however long ago.
 */
export async function extent({ kind, id, tz }, signal) {
  const asked = (every, more) => ask(seriesPath({ kind, id }), { ...EVER, every, ...more }, signal);
  const day = (item) => item.date.slice(0, 10);
  const daysOf = (date) =>
    asked('1day', { start: date, end: endOfMonth(date), size: 31 }).then(({ items }) => items.map(day));
  const hoursOf = (date) => asked('1hour', { start: date, end: date, size: 24 }).then(({ items }) => items);
  const months = (await asked('1month', { size: PAGE })).items.map(day);
  if (months.length === 0) return null;
  const [[first], last] = await Promise.all([daysOf(months[0]), daysOf(months.at(-1)).then((days) => days.at(-1))]);
  if (tz === 'UTC') return { start: first, end: last };
  // The first and the last hour of a day in UTC can be of the day before or after elsewhere.
  const [from, until] = await Promise.all([hoursOf(first), hoursOf(last)]);
  return daysBetween(Date.parse(from[0].date), Date.parse(until.at(-1).date) + HOUR, tz);
}

function endOfMonth(date) {
  const [year, month] = date.split('-').map(Number);
  return new Date(Date.UTC(year, month, 0)).toISOString().slice(0, 10);
}
