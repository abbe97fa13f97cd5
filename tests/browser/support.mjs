// Helpers for the browser tests: the browser, tabs that fail on errors, and API requests.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { findChromium } from './chromium.mjs';

/** The URL of a running server with generated usage for examples/inventory.json. */
export const BASE = process.env.SIMUSAGE_PAGE_URL;

/** The page's path for a week of x00g8 in daily buckets. */
export const WEEK = '/?organization=x00g8&start=2020-02-03&end=2020-02-09&every=1day';

let browser;

/** Starts the browser before the tests in a file, and closes it after them. */
export function withBrowser() {
  before(async () => {
    assert.ok(BASE, 'SIMUSAGE_PAGE_URL is not set: run the tests with `cargo test --test it page`');
    const executablePath = findChromium();
    assert.ok(executablePath, 'Chromium is not installed: run `make browser`');
    // Playwright creates an empty profile directory, and removes it afterwards.
    browser = await chromium.launch({
      executablePath,
      chromiumSandbox: false,
      args: [
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    });
  });
  after(() => browser?.close());
}

/**
 * Opens a path of the server in a new tab and passes it to `use`. The test fails if the page logs
 * an error or sends a request to another server. `expectErrors` permits the errors that browsers
 * log for failed requests.
 */
export async function tab(path, options, use) {
  const { width = 1280, height = 860, scheme = 'light', expectErrors = false, prepare, ...more } = options;
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    locale: 'en-GB',
    timezoneId: 'UTC',
    ...more,
  });
  // Generous, because the machine may be busy with a build.
  context.setDefaultTimeout(90_000);
  const page = await context.newPage();
  const errors = [];
  const responses = [];
  page.on('console', (message) => {
    const expected = expectErrors && message.text().startsWith('Failed to load resource');
    if (message.type() === 'error' && !expected) errors.push(message.text());
  });
  page.on('pageerror', (error) => errors.push(error.stack));
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== BASE && !request.url().startsWith('blob:'))
      errors.push(`request to ${request.url()}`);
  });
  page.on('response', (response) => responses.push(response));
  try {
    await prepare?.(page);
    await page.goto(BASE + path);
    await use(page, { context, responses });
    assert.deepEqual(errors, []);
  } finally {
    await context.close();
  }
}

/** Waits until the page has finished loading. */
export async function loaded(page) {
  await page.locator('main[aria-busy=false]').waitFor();
}

/** The JSON of a successful API response. */
export async function api(path) {
  const response = await fetch(BASE + path);
  assert.equal(response.status, 200, `${path}: ${await response.clone().text()}`);
  return response.json();
}

/** A mock of the API's error response. */
export function problem(status, title, detail, headers = {}) {
  const body = JSON.stringify({ type: 'about:blank', title, status, detail });
  return { status, contentType: 'application/problem+json', body, headers };
}

/** The rows of the table below the chart, as [bytes, records]. */
export async function tableRows(page) {
  await loaded(page);
  const details = page.locator('#numbers');
  if (!(await details.evaluate(({ open }) => open))) await page.getByText('Data table').click();
  await page.locator('#rows tr').first().waitFor();
  const rows = await page
    .locator('#rows tr')
    .evaluateAll((all) => all.map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent)));
  return rows.map((row) => row.map((text) => Number(text.replaceAll(',', ''))));
}

/** The same rows, taken from an API response. */
export function expectedRows(answer) {
  return answer.items.map((item) => [item['bytes-used-total'], item.records]);
}

const axe = await readFile(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');

/** Asserts that axe-core finds no serious violations. */
export async function assertAccessible(page) {
  // The page's content security policy forbids adding a script element.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ['violations'] }));
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  const report = serious.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' ')}`);
  assert.deepEqual(report, []);
}

/** Bar heights in pixels, measured in the canvas at the middle of `count` equal columns. */
export async function barHeights(page, count) {
  return page.evaluate((columns) => {
    const canvas = document.querySelector('#chart canvas');
    const over = document.querySelector('#chart .u-over');
    const scale = canvas.width / canvas.clientWidth;
    const [left, width] = [over.offsetLeft * scale, over.offsetWidth * scale];
    const [top, height] = [over.offsetTop * scale, over.offsetHeight * scale];
    const context = canvas.getContext('2d');
    const bar = context.getImageData(left + (width / columns) * 0.5, top + height - 3, 1, 1).data.join();
    return Array.from({ length: columns }, (_, index) => {
      const x = Math.round(left + (width / columns) * (index + 0.5));
      const column = context.getImageData(x, top, 1, height).data;
      let pixels = 0;
      for (let byte = 0; byte < column.length; byte += 4) if (column.slice(byte, byte + 4).join() === bar) pixels += 1;
      return pixels;
    });
  }, count);
}
