// Tests the page in a real browser, against a real server.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import {
  BASE,
  WEEK,
  api,
  assertAccessible,
  barHeights,
  expectedRows,
  tableRows,
  problem,
  loaded,
  tab,
  withBrowser,
} from './support.mjs';

const SERIES = '/api/v1/organization/x00g8/usage?start=2020-02-03&end=2020-02-09&every=1day&size=1000';
const heading = (page) => page.getByRole('heading', { level: 1 }).textContent();

withBrowser();

describe('usage', () => {
  test('a link to an organization shows its last four weeks', async (t) => {
    await tab('/?organization=x00g8', {}, async (page) => {
      await loaded(page);
      assert.equal(await heading(page), 'x00g8');
      assert.equal(new URL(page.url()).search, '?organization=x00g8&start=2020-02-01&end=2020-02-28&every=1day');
      const answer = await api('/api/v1/organization/x00g8/usage?start=2020-02-01&end=2020-02-28&every=1day');
      assert.deepEqual(await tableRows(page), expectedRows(answer));
      assert.equal(
        await page.locator('#total-exact').textContent(),
        `${answer['bytes-used-total'].toLocaleString('en')} bytes`,
      );
      const mark = await page.evaluate(() => performance.getEntriesByName('chart')[0].startTime);
      t.diagnostic(`first chart after ${Math.round(mark)} ms`);
      assert.ok(mark < 5_000, `${mark} ms`);
    });
  });

  test('without a query string, the page shows the organization with the highest usage', async () => {
    await tab('/', {}, async (page) => {
      await loaded(page);
      const [most] = (await api('/api/v1/usage/organizations?size=1')).items;
      assert.equal(await heading(page), most.organization);
      assert.ok((await tableRows(page)).length > 0);
    });
  });

  test('the table, bars and figures match the API', async () => {
    await tab(WEEK, {}, async (page) => {
      const answer = await api(SERIES);
      assert.deepEqual(await tableRows(page), expectedRows(answer));
      const bytes = answer.items.map((item) => item['bytes-used-total']);
      const heights = await barHeights(page, 7);
      const [most, tallest] = [Math.max(...bytes), Math.max(...heights)];
      assert.ok(tallest > 100, `bar heights in pixels: ${heights}`);
      for (const [index, height] of heights.entries()) {
        const wanted = (bytes[index] / most) * tallest;
        assert.ok(Math.abs(height - wanted) < 4, `bar ${index} is ${height} pixels high instead of ${wanted}`);
      }
      const records = answer.items.reduce((sum, item) => sum + item.records, 0);
      assert.equal(await page.locator('#records').textContent(), records.toLocaleString('en'));
      assert.match(await page.locator('#records-note').textContent(), /in 7 days/);
    });
  });

  test('the SIM cards with the highest usage are listed and link to their usage', async () => {
    await tab(WEEK, {}, async (page) => {
      const { items } = await api('/api/v1/usage/simcards?organization=x00g8&start=2020-02-03&end=2020-02-09&size=10');
      await loaded(page);
      const rows = page.locator('#top-rows tr');
      assert.deepEqual(
        await rows.locator('th').allTextContents(),
        items.map(({ simcard }) => simcard),
      );
      assert.equal(
        await rows.first().locator('td').nth(1).getAttribute('title'),
        `${items[0]['bytes-used-total'].toLocaleString('en')} bytes`,
      );
      await page.getByRole('link', { name: items[0].simcard }).click();
      await page.getByText('SIM card', { exact: true }).first().waitFor();
      assert.equal(await heading(page), items[0].simcard);
      const answer = await api(`/api/v1/simcard/${items[0].simcard}/usage?start=2020-02-03&end=2020-02-09&every=1day`);
      assert.deepEqual(await tableRows(page), expectedRows(answer));
    });
  });

  test('a 64-bit total is shown exactly', async () => {
    const prepare = (page) =>
      page.route('**/api/v1/organization/**', (route) =>
        route.fulfill({
          contentType: 'application/json',
          body: '{"items":[{"date":"2020-02-03T00:00:00Z","bytes-used-total":9223372036854775807,"records":1}],"total":1,"page":1,"size":1000,"start":"2020-02-03T00:00:00Z","end":"2020-02-10T00:00:00Z","every":"1day","tz":"UTC","bytes-used-total":9223372036854775807,"next":null}',
        }),
      );
    await tab(WEEK, { prepare }, async (page) => {
      await loaded(page);
      assert.equal(await page.locator('#total').textContent(), '9.22 EB');
      assert.equal(await page.locator('#total-exact').textContent(), '9,223,372,036,854,775,807 bytes');
      await page.getByText('Data table').click();
      assert.equal(await page.locator('#rows td').first().textContent(), '9,223,372,036,854,775,807');
    });
  });

  test('a series of several API pages is shown completely', async () => {
    // The database has too few buckets for several pages, so this uses smaller pages. The second page of
    // the first attempt says that the series has changed.
    let requests = 0;
    const prepare = (page) =>
      page.route('**/api/v1/organization/**', async (route) => {
        const url = new URL(route.request().url());
        url.searchParams.set('size', 3);
        const answer = await (await fetch(url)).json();
        requests += 1;
        if (requests === 2) Object.assign(answer, { 'list-changed': true, items: [] });
        await route.fulfill({ json: answer });
      });
    await tab(WEEK, { prepare }, async (page) => {
      assert.deepEqual(await tableRows(page), expectedRows(await api(SERIES)));
      assert.equal(requests, 2 + 3);
    });
  });

  test('the page begins with the first day that is still kept', async () => {
    const kept = '2020-02-10';
    const prepare = (page) =>
      page.route('**/api/v1/**/usage**', async (route) => {
        const start = new URL(route.request().url()).searchParams.get('start') ?? '1970-01-01';
        if (start >= kept) return route.continue();
        const refusal = problem(422, 'Unprocessable Entity', 'Part of this interval is no longer kept.');
        refusal.body = JSON.stringify({ ...JSON.parse(refusal.body), 'complete-from': kept });
        await route.fulfill(refusal);
      });
    const zones = [
      ['', kept, '2020-02-28'],
      ['&tz=Asia/Kathmandu', '2020-02-11', '2020-02-29'],
    ];
    for (const [tz, first, last] of zones) {
      await tab(`/?organization=x00g8${tz}`, { prepare, expectErrors: true }, async (page) => {
        await loaded(page);
        const { searchParams } = new URL(page.url());
        assert.deepEqual([searchParams.get('start'), searchParams.get('end')], [first, last]);
      });
    }
    await tab(WEEK, { prepare, expectErrors: true }, async (page) => {
      await page.locator('#notice-detail').getByText('no longer kept').waitFor();
    });
  });

  test('the page shows that recent usage is incomplete', async () => {
    const prepare = (page) =>
      page.route('**/api/v1/organization/**', async (route) => {
        const answer = await (await route.fetch()).json();
        const ingested = new Date(Date.now() - 180_000).toISOString();
        await route.fulfill({
          json: { ...answer, 'complete-through': '2020-02-08T12:00:00Z', 'last-ingested-at': ingested },
        });
      });
    await tab(WEEK, { prepare }, async (page) => {
      await loaded(page);
      assert.equal(await page.locator('#complete').textContent(), '8 Feb 2020, 12:00');
      assert.equal(await page.locator('#complete-note').textContent(), 'last ingest 3 minutes ago');
    });
  });
});

describe('navigation', () => {
  test('an organization can be found with the keyboard alone', async () => {
    await tab(WEEK, {}, async (page) => {
      await loaded(page);
      await page.keyboard.press('/');
      const box = page.getByRole('combobox', { name: 'Find an organization or SIM card' });
      await page.getByRole('option', { name: 'a01b7' }).waitFor();
      await page.keyboard.type('f0');
      await page.getByRole('option', { name: 'f00ff', exact: false }).first().waitFor();
      assert.equal(await box.getAttribute('aria-expanded'), 'true');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { level: 1, name: 'f00ff' }).waitFor();
      assert.equal(await box.getAttribute('aria-expanded'), 'false');
      assert.ok((await tableRows(page)).length > 0);
    });
  });

  test('a search finds a SIM card by its prefix', async () => {
    await tab(WEEK, {}, async (page) => {
      await loaded(page);
      await page.locator('#search').fill('8944001');
      const options = page.locator('#found [role=option]');
      await page.getByRole('option', { name: '89440016' }).waitFor();
      assert.deepEqual(await options.locator('span').allTextContents(), [
        '89440010',
        '89440011',
        '89440012',
        '89440013',
        '89440014',
        '89440016',
      ]);
      await page.keyboard.press('ArrowDown');
      assert.equal(await page.locator('#found [aria-selected=true] span').textContent(), '89440011');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { level: 1, name: '89440011' }).waitFor();
      await page.locator('#search').fill('nobody');
      await page.getByText('No organization or SIM card starts with “nobody”.').waitFor();
      await page.keyboard.press('Escape');
      assert.ok(await page.locator('#found').isHidden());
    });
  });

  test('a search among 100,000 SIM cards is fast and lists few results', async (t) => {
    const cards = Array.from({ length: 100_000 }, (_, index) => ({
      simcard: `8944${String(index).padStart(15, '0')}`,
      organization: `o${index % 500}`,
      'valid-from': null,
    }));
    const prepare = (page) =>
      page.route('**/api/v1/inventory?**', async (route) => {
        const parameters = new URL(route.request().url()).searchParams;
        const q = parameters.get('q');
        const found = cards.filter(({ simcard, organization }) => simcard.startsWith(q) || organization.startsWith(q));
        await route.fulfill({
          json: {
            items: found.slice(0, Number(parameters.get('size'))),
            total: found.length,
            page: 1,
            size: 200,
            next: null,
          },
        });
      });
    await tab(WEEK, { prepare }, async (page) => {
      await loaded(page);
      const start = Date.now();
      await page.locator('#search').pressSequentially('8944000000000099999', { delay: 5 });
      await page.getByRole('option', { name: '8944000000000099999' }).waitFor();
      t.diagnostic(`found after ${Date.now() - start} ms`);
      await page.locator('#search').fill('8944');
      await page.getByRole('option', { name: '8944000000000000000' }).waitFor();
      assert.ok((await page.locator('#found [role=option]').count()) === 10);
    });
  });

  test('the back button restores intervals and granularities from the URL', async () => {
    await tab(WEEK, {}, async (page) => {
      await loaded(page);
      await page.getByLabel('Granularity').selectOption('1hour');
      await page.waitForURL(/every=1hour/);
      const hours = await api(SERIES.replace('1day', '1hour'));
      assert.deepEqual(await tableRows(page), expectedRows(hours));
      await page.getByRole('button', { name: 'Earlier' }).click();
      await page.waitForURL(/start=2020-01-27&end=2020-02-02&every=1hour/);
      await page.getByRole('button', { name: '28 days' }).click();
      await page.waitForURL(/start=2020-02-01&end=2020-02-28&every=1day/);
      assert.equal(await page.getByRole('button', { name: '28 days' }).getAttribute('aria-pressed'), 'true');
      await page.getByLabel('First day').fill('2020-02-10');
      await page.waitForURL(/start=2020-02-10&end=2020-02-28/);
      for (const url of [
        /start=2020-02-01/,
        /start=2020-01-27/,
        /start=2020-02-03.*every=1hour/,
        /start=2020-02-03.*every=1day/,
      ]) {
        await page.goBack();
        await page.waitForURL(url);
      }
      await page.locator('#chart-title', { hasText: 'Bytes per day' }).waitFor();
      assert.deepEqual(await tableRows(page), expectedRows(await api(SERIES)));
      assert.equal(await page.getByLabel('First day').inputValue(), '2020-02-03');
    });
  });

  test('a last day before the first day is rejected', async () => {
    await tab(WEEK, {}, async (page) => {
      await loaded(page);
      await page.getByLabel('Last day', { exact: true }).fill('2020-01-01');
      assert.equal(
        await page.getByLabel('Last day', { exact: true }).evaluate((input) => input.validationMessage),
        'The last day is before the first day.',
      );
      assert.match(page.url(), /end=2020-02-09/);
    });
  });

  test('a bar shows its day when it is clicked or Enter is pressed', async () => {
    await tab(WEEK, {}, async (page) => {
      await loaded(page);
      const { items } = await api(SERIES);
      await page.locator('#chart').focus();
      await page.keyboard.press('ArrowRight');
      await page.keyboard.press('ArrowRight');
      const readout = await page.locator('#readout').textContent();
      assert.match(readout, /^Tue,? 4 Feb 2020: /);
      assert.ok(readout.endsWith(`${items[1].records} records`), readout);
      assert.equal(await page.locator('#status').textContent(), readout);
      await page.keyboard.press('Enter');
      await page.waitForURL(/start=2020-02-04&end=2020-02-04&every=1hour/);
      await page.goBack();
      await page.locator('#chart-title', { hasText: 'Bytes per day' }).waitFor();
      await loaded(page);
      const box = await page.locator('#chart .u-over').boundingBox();
      await page.mouse.click(box.x + (box.width / 7) * 2.5, box.y + box.height / 2);
      await page.waitForURL(/start=2020-02-05&end=2020-02-05&every=1hour/);
    });
  });

  test('dragging across bars shows their days', async () => {
    await tab(WEEK, {}, async (page) => {
      await loaded(page);
      const box = await page.locator('#chart .u-over').boundingBox();
      const [day, y] = [box.width / 7, box.y + box.height / 2];
      await page.mouse.move(box.x + day * 1.2, y);
      await page.mouse.down();
      await page.mouse.move(box.x + day * 2, y);
      await page.mouse.move(box.x + day * 3.8, y);
      await page.mouse.up();
      await page.waitForURL(/start=2020-02-04&end=2020-02-06&every=1hour/);
    });
  });

  test('a copied link shows the same view', async () => {
    await tab(WEEK, { permissions: ['clipboard-read', 'clipboard-write'] }, async (page, { context }) => {
      const rows = await tableRows(page);
      await page.getByRole('link', { name: 'Copy link' }).click();
      await page.getByText('Link copied.').waitFor();
      const copied = await page.evaluate(() => navigator.clipboard.readText());
      const other = await context.newPage();
      await other.goto(copied);
      assert.deepEqual(await tableRows(other), rows);
    });
  });
});

describe('missing usage and errors', () => {
  test('an interval without usage links to the most recent usage', async () => {
    await tab('/?organization=x00g8&start=2021-05-01&end=2021-05-07&every=1day', {}, async (page) => {
      await page
        .getByText('x00g8 has no usage between 1 May 2021 and 7 May 2021. The most recent usage is from 28 Feb 2020.')
        .waitFor();
      await page.getByRole('button', { name: 'Show most recent usage' }).click();
      await page.waitForURL(/start=2020-02-22&end=2020-02-28/);
      assert.ok((await tableRows(page)).length > 0);
    });
  });

  test('an empty database shows how to ingest usage', async () => {
    const prepare = (page) =>
      page.route('**/api/v1/usage/organizations?**', (route) =>
        route.fulfill({ json: { items: [], total: 0, page: 1, size: 1, next: null } }),
      );
    await tab('/', { prepare }, async (page) => {
      await page.getByRole('heading', { name: 'No usage yet' }).waitFor();
      await page.unrouteAll();
      await assertAccessible(page);
    });
  });

  test('the API error is shown for an unknown organization', async () => {
    for (const path of ['/?organization=nobody', '/?organization=nobody&start=2020-02-03&end=2020-02-09&every=1day']) {
      await tab(path, { expectErrors: true }, async (page) => {
        await page.locator('main').getByText('No organization nobody found!').filter({ visible: true }).waitFor();
        await page.getByRole('button', { name: 'Try again' }).waitFor();
      });
    }
  });

  test('an error is shown with its detail, and the request can be retried', async () => {
    let failures = 0;
    const prepare = (page) =>
      page.route('**/api/v1/organization/**', (route) => {
        failures += 1;
        if (failures > 1) return route.continue();
        return route.fulfill(
          problem(503, 'Service Unavailable', 'The database is unavailable. Try again later.', { 'retry-after': '5' }),
        );
      });
    await tab(WEEK, { prepare, expectErrors: true }, async (page) => {
      await page.getByRole('heading', { name: 'Service Unavailable' }).waitFor();
      await page.locator('main').getByText('The database is unavailable. Try again later.').waitFor();
      assert.equal(await page.locator('#total').textContent(), '–');
      await assertAccessible(page);
      await page.getByRole('button', { name: 'Try again' }).click();
      assert.deepEqual(await tableRows(page), expectedRows(await api(SERIES)));
    });
  });

  test('an unreachable server has its own error message', async () => {
    const prepare = (page) => page.route('**/api/**', (route) => route.abort());
    await tab('/', { prepare, expectErrors: true }, async (page) => {
      await page.getByRole('heading', { name: 'Cannot reach the server' }).waitFor();
      await page.unrouteAll();
      await page.getByRole('button', { name: 'Try again' }).click();
      assert.ok((await tableRows(page)).length > 0);
    });
  });

  test('a late response does not replace the current view', async () => {
    let release;
    const released = new Promise((resolve) => {
      release = resolve;
    });
    const prepare = (page) =>
      page.route(/every=1hour/, async (route) => {
        await released;
        await route.continue().catch(() => {});
      });
    await tab(WEEK, { prepare }, async (page) => {
      await loaded(page);
      await page.getByLabel('Granularity').selectOption('1hour');
      await page.locator('body.loading').waitFor();
      await page.getByLabel('Granularity').selectOption('1day');
      release();
      assert.deepEqual(await tableRows(page), expectedRows(await api(SERIES)));
      assert.equal(await page.locator('#chart-title').textContent(), 'Bytes per day');
    });
  });
});

describe('tokens', () => {
  const GOOD = 'a-good-token';
  /** Behaves like a server that requires a token. */
  const prepare = (page) =>
    page.context().route('**/api/**', (route) => {
      const authorization = route.request().headers().authorization;
      return authorization === `Bearer ${GOOD}`
        ? route.continue()
        : route.fulfill(problem(401, 'Unauthorized', 'A token is required.', { 'www-authenticate': 'Bearer' }));
    });

  test('the page asks for a required token and keeps it for the tab only', async () => {
    await tab(WEEK, { prepare, expectErrors: true }, async (page, { context }) => {
      const dialog = page.getByRole('dialog', { name: 'This server requires a token' });
      await dialog.waitFor();
      await assertAccessible(page);
      await page.getByLabel('Token', { exact: true }).fill('a-wrong-token');
      await page.keyboard.press('Enter');
      await page.getByText('The server rejected this token.').waitFor();
      await page.getByLabel('Token', { exact: true }).fill(GOOD);
      await page.keyboard.press('Enter');
      assert.deepEqual(await tableRows(page), expectedRows(await api(SERIES)));
      assert.ok(!page.url().includes(GOOD));
      await page.reload();
      assert.deepEqual(await tableRows(page), expectedRows(await api(SERIES)));
      assert.equal(await page.evaluate(() => JSON.stringify(localStorage) + document.cookie), '{}');
      const other = await context.newPage();
      await other.goto(page.url());
      await other.getByRole('dialog', { name: 'This server requires a token' }).waitFor();
      // Adds an entry to the history.
      await page.getByLabel('Granularity').selectOption('1hour');
      await page.locator('#chart-title').getByText('Bytes per hour').waitFor();
      await page.getByRole('button', { name: 'Forget token' }).click();
      // Like a page that never had a token.
      const assertNothingShown = async () => {
        for (const one of [page, other]) {
          await one.getByRole('dialog', { name: 'This server requires a token' }).waitFor();
        }
        assert.equal(await page.evaluate(() => sessionStorage.length), 0);
        assert.equal(await page.title(), await other.title());
        const text = (of) => of.evaluate(() => document.body.textContent);
        assert.equal(await text(page), await text(other));
      };
      await other.goto(new URL('/', page.url()).href);
      await assertNothingShown();
      assert.equal(new URL(page.url()).search, '');
      // Not even the browser's copy of the page before shows more than its address.
      await page.goBack();
      assert.ok(new URL(page.url()).search.includes('x00g8'));
      await other.goto(page.url());
      await assertNothingShown();
    });
  });

  test('without a token, the server error is shown', async () => {
    await tab(WEEK, { prepare, expectErrors: true }, async (page) => {
      await page.getByRole('dialog').waitFor();
      await page.keyboard.press('Escape');
      await page.locator('#notice').getByText('A token is required.').waitFor();
      await page.getByRole('button', { name: 'Try again' }).click();
      await page.getByRole('dialog').waitFor();
      await page.getByLabel('Token', { exact: true }).fill(GOOD);
      await page.getByRole('button', { name: 'Use token' }).click();
      assert.deepEqual(await tableRows(page), expectedRows(await api(SERIES)));
    });
  });
});

describe('accessibility and themes', () => {
  for (const scheme of ['light', 'dark']) {
    test(`axe-core finds no serious violations in the ${scheme} theme`, async () => {
      await tab(WEEK, { scheme }, async (page) => {
        await tableRows(page);
        await assertAccessible(page);
        await page.locator('#search').fill('8944001');
        await page.getByRole('option', { name: '89440016' }).waitFor();
        await assertAccessible(page);
      });
    });
  }

  test('the page fits a phone without horizontal scrolling', async () => {
    await tab(WEEK, { width: 360, height: 740, scheme: 'dark', hasTouch: true, isMobile: true }, async (page) => {
      await tableRows(page);
      const overflow = () =>
        page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(await overflow(), 0);
      await page.locator('#search').fill('8944001');
      await page.getByRole('option', { name: '89440016' }).waitFor();
      assert.equal(await overflow(), 0);
      await assertAccessible(page);
    });
  });

  test('the theme follows the system until the user switches it', async () => {
    await tab(WEEK, { scheme: 'dark' }, async (page) => {
      await loaded(page);
      const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const dark = await background();
      await page.getByRole('button', { name: 'Switch to light theme' }).click();
      const light = await background();
      assert.notEqual(light, dark);
      await page.reload();
      await loaded(page);
      assert.equal(await background(), light);
      await page.getByRole('button', { name: 'Switch to dark theme' }).click();
      assert.equal(await background(), dark);
      assert.equal(await page.evaluate(() => localStorage.length), 0);
    });
  });
});

describe('assets', () => {
  test('the page is smaller than 200 kB and loads from one server', async (t) => {
    await tab(WEEK, {}, async (page, { responses }) => {
      await loaded(page);
      const own = responses.filter((response) => !new URL(response.url()).pathname.startsWith('/api/'));
      const sizes = await Promise.all(own.map(async (response) => (await response.body()).length));
      const sent = await Promise.all(own.map(async (response) => (await response.request().sizes()).responseBodySize));
      const sum = (values) => values.reduce((total, value) => total + value, 0);
      t.diagnostic(`${own.length} files, ${sum(sizes)} bytes, ${sum(sent)} compressed`);
      assert.ok(own.length >= 10 && sum(sent) > 0);
      assert.ok(sum(sizes) < 200_000, `${sum(sizes)} bytes`);
    });
  });

  test('the content security policy forbids other servers, and assets are cached indefinitely', async () => {
    const page = await fetch(`${BASE}/`);
    const policy = page.headers.get('content-security-policy');
    for (const part of [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "base-uri 'none'",
      "frame-ancestors 'none'",
      "form-action 'none'",
    ]) {
      assert.ok(policy.split('; ').includes(part), policy);
    }
    assert.doesNotMatch(policy, /unsafe/);
    assert.equal(page.headers.get('x-content-type-options'), 'nosniff');
    assert.equal(page.headers.get('referrer-policy'), 'no-referrer');
    assert.equal(page.headers.get('cache-control'), 'no-cache');
    const html = await page.text();
    const again = await fetch(`${BASE}/`, { headers: { 'if-none-match': page.headers.get('etag') } });
    assert.equal(again.status, 304);
    const [path] = /assets\/[0-9a-f]+\/app\.js/.exec(html);
    const script = await fetch(`${BASE}/${path}`);
    assert.match(script.headers.get('cache-control'), /immutable/);
    assert.equal(script.headers.get('content-encoding'), 'gzip');
    assert.equal((await fetch(`${BASE}/assets/0000000000000000/app.js`)).status, 404);
    assert.equal((await fetch(`${BASE}/${path.replace('app.js', 'index.html')}`)).status, 404);
  });

  test('the vendored uPlot matches its npm package', async () => {
    const vendored = new URL('../../web/vendor/', import.meta.url);
    const published = new URL('./node_modules/uplot/', import.meta.url);
    for (const [name, path] of [
      ['uPlot.iife.min.js', 'dist/uPlot.iife.min.js'],
      ['uPlot.min.css', 'dist/uPlot.min.css'],
      ['uPlot.LICENSE', 'LICENSE'],
    ]) {
      assert.deepEqual(await readFile(new URL(name, vendored)), await readFile(new URL(path, published)), name);
    }
  });
});

// `make screenshots` uses this to take the README's screenshots.
const screenshots = process.env.SIMUSAGE_SCREENSHOTS;
test('screenshots', { skip: !screenshots }, async () => {
  for (const [scheme, name] of [
    ['light', 'dashboard.png'],
    ['dark', 'dashboard-dark.png'],
  ]) {
    await tab('/?organization=x00g8', { scheme, width: 1180, deviceScaleFactor: 1.5 }, async (page) => {
      await loaded(page);
      const box = await page.locator('#chart .u-over').boundingBox();
      await page.mouse.move(box.x + (box.width / 28) * 13.5, box.y + box.height / 2);
      await page.screenshot({ path: join(screenshots, name), fullPage: true });
    });
  }
});
