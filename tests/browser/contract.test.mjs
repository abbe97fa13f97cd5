// Compares the page with the API: time zones, wide buckets, CSV files and freshness.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { BASE, WEEK, api, expectedRows, loaded, tab, tableRows, withBrowser } from './support.mjs';

const USAGE = '/api/v1/organization/x00g8/usage';

withBrowser();

test('days begin at midnight in the selected time zone', async () => {
  await tab(WEEK, {}, async (page) => {
    await loaded(page);
    await page.getByLabel('Time zone').selectOption('Australia/Adelaide');
    await page.waitForURL(/tz=Australia\/Adelaide/);
    const here = expectedRows(await api(`${USAGE}?start=2020-02-03&end=2020-02-09&every=1day&tz=Australia/Adelaide`));
    assert.deepEqual(await tableRows(page), here);
    assert.notDeepEqual(here, expectedRows(await api(`${USAGE}?start=2020-02-03&end=2020-02-09&every=1day`)));
    assert.match(await page.locator('#rows th').first().textContent(), /^Mon,? 3 Feb 2020$/);
    const { items } = await api(
      '/api/v1/usage/simcards?organization=x00g8&start=2020-02-03&end=2020-02-09&tz=Australia/Adelaide&size=1',
    );
    assert.equal(
      await page.locator('#top-rows td').nth(1).getAttribute('title'),
      `${items[0]['bytes-used-total'].toLocaleString('en')} bytes`,
    );
    await page.reload();
    assert.deepEqual(await tableRows(page), here);
    assert.equal(await page.getByLabel('Time zone').inputValue(), 'Australia/Adelaide');
  });
});

test('the default view sends no request that the server rejects', async () => {
  await tab('/', {}, async (page) => {
    await page.waitForURL(/start=2020-02-01&end=2020-02-28&every=1day/);
    assert.equal((await tableRows(page)).length, 28);
  });
});

test('the most recent days depend on the time zone', async () => {
  // The records end at midnight UTC: the evening before in New York, the morning after in Tokyo.
  for (const [tz, end] of [
    ['America/New_York', '2020-02-28'],
    ['Asia/Tokyo', '2020-02-29'],
  ]) {
    await tab(`/?organization=x00g8&tz=${tz}`, {}, async (page) => {
      await page.waitForURL(new RegExp(`end=${end}&every=1day&tz=${tz}`));
      await loaded(page);
      assert.ok((await tableRows(page)).length >= 28);
    });
  }
});

test('the API error is shown for an unknown time zone', async () => {
  await tab(`${WEEK}&tz=Europe/Atlantis`, { expectErrors: true }, async (page) => {
    const error = await (
      await fetch(`${BASE}${USAGE}?start=2020-02-03&end=2020-02-09&every=1day&tz=Europe/Atlantis`)
    ).json();
    await page.locator('#notice').getByText(error.detail).waitFor();
  });
});

test('weekly and monthly buckets appear in the chart and the table', async () => {
  await tab('/?organization=x00g8&start=2020-02-01&end=2020-02-28&every=1week', {}, async (page) => {
    const weeks = await api(`${USAGE}?start=2020-02-01&end=2020-02-28&every=1week`);
    assert.deepEqual(await tableRows(page), expectedRows(weeks));
    // The interval includes only two days of the first week.
    assert.equal(await page.locator('#rows th').first().textContent(), '1 Feb 2020 – 2 Feb 2020');
    await page.getByLabel('Granularity').selectOption('1month');
    await page.locator('#chart-title', { hasText: 'Bytes per month' }).waitFor();
    assert.deepEqual(
      await tableRows(page),
      expectedRows(await api(`${USAGE}?start=2020-02-01&end=2020-02-28&every=1month`)),
    );
    assert.equal(await page.locator('#rows th').first().textContent(), 'February 2020');
    assert.equal(await page.locator('#busiest-name').textContent(), 'Busiest month');
  });
});

test('the CSV file contains the series that the page shows', async () => {
  await tab(WEEK.replace('1day', '6hour'), {}, async (page) => {
    await loaded(page);
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Download CSV' }).click(),
    ]);
    assert.equal(download.suggestedFilename(), 'usage-x00g8-2020-02-03-2020-02-09-6hour.csv');
    const text = await readFile(await download.path(), 'utf8');
    const [head, ...lines] = text.trimEnd().split('\n');
    assert.equal(head, 'date,bytes-used-total,records');
    assert.deepEqual(
      lines.map((line) => line.split(',').slice(1).map(Number)),
      await tableRows(page),
    );
    const answer = await api(`${USAGE}?start=2020-02-03&end=2020-02-09&every=6hour`);
    assert.deepEqual(
      lines.map((line) => line.split(',')[0]),
      answer.items.map(({ date }) => date),
    );
  });
});

test('the page shows the time through which usage is complete', async () => {
  await tab(WEEK, {}, async (page) => {
    await loaded(page);
    const answer = await api(`${USAGE}?start=2020-02-03&end=2020-02-09&every=1day`);
    assert.ok(answer['complete-through'].startsWith('2020-02-28T'));
    assert.equal(
      await page.locator('#complete').textContent(),
      `28 Feb 2020, ${answer['complete-through'].slice(11, 16)}`,
    );
    assert.match(
      await page.locator('#complete-note').textContent(),
      /^last ingest (just now|\d+ (minute|hour)s? ago)$/,
    );
  });
});

test('the search runs on the server, and a SIM card links to its organization', async () => {
  await tab(WEEK, {}, async (page, { responses }) => {
    await loaded(page);
    await page.locator('#search').fill('8944001');
    await page.getByRole('option', { name: '89440016' }).click();
    await page.getByRole('heading', { level: 1, name: '89440016' }).waitFor();
    await page.getByRole('link', { name: 'f00ff' }).click();
    await page.getByRole('heading', { level: 1, name: 'f00ff' }).waitFor();
    assert.ok(responses.some((response) => response.url().includes('/api/v1/inventory?q=8944001') && response.ok()));
  });
});

test('the owner of a SIM card is that of today', async () => {
  for (const [simcard, organization, text] of [
    ['7700001', 'x00g8', 'Belongs to x00g8'],
    ['7700002', 'f00ff', 'Belongs to no organization today, and to f00ff from 1 Jan 2190 on'],
    ['7700003', 'a01b7', 'Belonged to a01b7 until 1 Feb 2020'],
  ]) {
    await tab(`/?simcard=${simcard}&start=2020-02-03&end=2020-02-09&every=1day`, {}, async (page) => {
      await loaded(page);
      const owner = page.locator('#owner');
      await owner.getByRole('link', { name: organization }).waitFor();
      assert.equal((await owner.textContent()).replaceAll(/\s+/g, ' ').trim(), text);
      // The search shows owners, too.
      await page.locator('#search').fill(simcard);
      const option = page.getByRole('option', { name: simcard });
      await option.waitFor();
      const expected = simcard === '7700001' ? organization : '';
      assert.equal((await option.textContent()).replace(simcard, '').trim(), expected);
    });
  }
});
