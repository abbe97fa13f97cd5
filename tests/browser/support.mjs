// What every test of the page needs: a browser, a tab that minds its manners, and the API to compare with.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { findChromium } from './chromium.mjs';

/** A running server with the usage that `simusage generate` makes of examples/inventory.json. */
export const BASE = process.env.SIMUSAGE_PAGE_URL;

/** A week of x00g8 by the day. */
export const WEEK = '/?organization=x00g8&start=2020-02-03&end=2020-02-09&every=1day';

let browser;

/** Starts the browser before the tests of a file, and ends it after them. */
export function withBrowser() {
  before(async () => {
    assert.ok(BASE, 'SIMUSAGE_PAGE_URL names no server: `cargo test --test it page` starts one');
    const executablePath = findChromium();
    assert.ok(executablePath, 'Chromium is missing: `make browser` installs it');
    // Playwright makes an empty folder for the user's data, and removes it.
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
 * Gives `use` a tab on a path of the server. Whatever the page logs as an error, and whatever it asks another server
 * for, fails the test. `refusals` says that the server is meant to refuse something, which browsers log.
 */
export async function tab(path, options, use) {
  const { width = 1280, height = 860, scheme = 'light', refusals = false, prepare, ...more } = options;
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    locale: 'en-GB',
    timezoneId: 'UTC',
    ...more,
  });
  // A machine that is building something else meanwhile is slow, and not wrong.
  context.setDefaultTimeout(90_000);
  const page = await context.newPage();
  const errors = [];
  const responses = [];
  page.on('console', (message) => {
    const refused = refusals && message.text().startsWith('Failed to load resource');
    if (message.type() === 'error' && !refused) errors.push(message.text());
  });
  page.on('pageerror', (error) => errors.push(error.stack));
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== BASE && !request.url().startsWith('blob:'))
      errors.push(`asked ${request.url()}`);
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

/** Waits until the page shows something and nothing is under way. */
export async function settled(page) {
  await page.locator('main[aria-busy=false]').waitFor();
}

/** What the API answers. */
export async function api(path) {
  const response = await fetch(BASE + path);
  assert.equal(response.status, 200, `${path}: ${await response.clone().text()}`);
  return response.json();
}

/** A problem as the API writes it. */
export function problem(status, title, detail, headers = {}) {
  const body = JSON.stringify({ type: 'about:blank', title, status, detail });
  return { status, contentType: 'application/problem+json', body, headers };
}

/** The numbers that stand in the table below the chart: [bytes, records] of each row. */
export async function numbers(page) {
  await settled(page);
  const details = page.locator('#numbers');
  if (!(await details.evaluate(({ open }) => open))) await page.getByText('Show the numbers').click();
  await page.locator('#rows tr').first().waitFor();
  const rows = await page
    .locator('#rows tr')
    .evaluateAll((all) => all.map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent)));
  return rows.map((row) => row.map((text) => Number(text.replaceAll(',', ''))));
}

/** The same numbers out of an answer of the API. */
export function expected(answer) {
  return answer.items.map((item) => [item['bytes-used-total'], item.records]);
}

const axe = await readFile(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');

/** Asserts that axe-core finds nothing serious. */
export async function assertAccessible(page) {
  // Not as a script of the page's, which its policy forbids.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ['violations'] }));
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  const told = serious.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' ')}`);
  assert.deepEqual(told, []);
}

/** The heights of the bars in the canvas, in pixels, at the middle of each of `count` equal columns. */
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
      for (let at = 0; at < column.length; at += 4) if (column.slice(at, at + 4).join() === bar) pixels += 1;
      return pixels;
    });
  }, count);
}
