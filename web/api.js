// Requests to the public API: the token, error responses, paging, and 64-bit integers.

import { currentToken, requestToken } from './token.js';

const PAGE_SIZE = 1000;

/** A failed request, with members of the problem details in the response, if any. */
class ApiError extends Error {
  constructor(status, title, detail, completeFrom = null) {
    super(detail);
    this.status = status;
    this.title = title;
    // The first day that is still kept, if an earlier one was requested.
    this.completeFrom = completeFrom;
  }
}

/** How often a series is requested that changes while its pages are. */
const MAX_ATTEMPTS = 5;

/** All buckets of a view's series, and totals that match them. */
export async function series(view, signal) {
  const parameters = { ...intervalParameters(view), size: PAGE_SIZE };
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
    let answer = await seriesPage(view, parameters, signal);
    const pages = [answer];
    while (answer.next && !answer['list-changed']) {
      answer = await getJson(answer.next.slice(1), {}, signal);
      pages.push(answer);
    }
    if (!answer['list-changed']) return { ...pages[0], items: pages.flatMap(({ items }) => items) };
  }
  throw new ApiError(0, 'The usage keeps changing', 'It changed while its pages were requested. Try a wider granularity.');
}

/** One page of the series of a subject. */
export function seriesPage(subject, parameters, signal) {
  return getJson(seriesPath(subject), parameters, signal);
}

/** A view's series as a CSV file. */
export async function seriesCsv(view) {
  const response = await get(seriesPath(view), { ...intervalParameters(view), format: 'csv' });
  return response.blob();
}

/** The SIM cards of an organization with the highest usage in an interval. */
export function topSimCards({ id, start, end, tz }, signal) {
  const parameters = { organization: id, ...intervalParameters({ start, end, tz }), size: 10 };
  return getJson('api/v1/usage/simcards', parameters, signal);
}

/** Organizations with usage that is still kept, highest first. */
export function organizations(size, signal) {
  return ofKept({ size }, (parameters) => getJson('api/v1/usage/organizations', parameters, signal));
}

/** Requests an interval, or the part of it that is still kept. Throws if there is no such part. */
export async function ofKept(parameters, request) {
  try {
    return await request(parameters);
  } catch (error) {
    const { completeFrom } = error;
    if (!completeFrom || completeFrom <= (parameters.start ?? '') || completeFrom > parameters.end) throw error;
    return request({ ...parameters, start: completeFrom });
  }
}

/** The assignments of a SIM card, by time. */
export function assignmentsOf(simcard, signal) {
  return getJson('api/v1/inventory', { simcard, size: PAGE_SIZE }, signal);
}

/** Assignments whose SIM card or organization starts with `q`. */
export function inventory({ q, size }, signal) {
  return getJson('api/v1/inventory', { q, size }, signal);
}

function seriesPath({ kind, id }) {
  return `api/v1/${kind}/${encodeURIComponent(id)}/usage`;
}

function intervalParameters({ start, end, every, tz }) {
  // UTC is the API's default.
  return { start, end, every, tz: tz === 'UTC' ? null : tz };
}

async function getJson(path, parameters, signal) {
  const response = await get(path, parameters, signal);
  return parseJson(await response.text());
}

/** Parses JSON. Byte counts too large for a Number become strings; BigInt accepts both. */
function parseJson(text) {
  return JSON.parse(text.replace(/("bytes-used-total"\s*:\s*)(-?\d{16,})/g, '$1"$2"'));
}

/** Sends a request. After status 401 it asks the user for a token and retries. */
async function get(path, parameters, signal) {
  for (;;) {
    const token = currentToken();
    let response;
    try {
      response = await fetch(requestUrl(path, parameters), {
        headers: token ? { authorization: `Bearer ${token}` } : {},
        signal,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(0, 'Cannot reach the server', 'The server may be restarting, or you may be offline.');
    }
    if (response.ok) return response;
    const error = await responseError(response);
    if (response.status !== 401) throw error;
    // If another request obtained a token in the meantime, retry with that one.
    if (token === currentToken() && !(await requestToken(token !== null))) throw error;
    signal?.throwIfAborted();
  }
}

/** The URL of a request, without parameters that are null. */
function requestUrl(path, parameters) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url.href;
}

async function responseError(response) {
  const body = await response.json().catch(() => ({}));
  const title = body.title || response.statusText || `HTTP status ${response.status}`;
  return new ApiError(response.status, title, body.detail || 'The server gave no details.', body['complete-from']);
}
