// Uses the client that openapi-generator generates for TypeScript (fetch).
import { Configuration, InventoryApi, ResponseError, UsageApi } from './index';

declare const process: { argv: string[] };

async function main() {
  const configuration = new Configuration({ basePath: process.argv[2] });
  const usage = new UsageApi(configuration);
  const [start, end] = ['2020-02-01', '2020-02-02T12:00:00Z'];
  const series = await usage.getOrganizationUsage({ organization: 'a01b7', start, end, every: '1hour' });
  const first = series.items[0].date.toISOString().replace('.000', '');
  console.log('series', first, series.bytesUsedTotal);
  const totals = await usage.listOrganizationTotals();
  console.log('organizations', totals.items.length);
  const page = await new InventoryApi(configuration).listAssignments({ page: 2, size: 3 });
  console.log('page', page.page, page.items[0].simcard);
  try {
    await usage.getOrganizationUsage({ organization: 'nobody', start, end, every: '1day' });
  } catch (error) {
    const { response } = error as ResponseError;
    console.log(response.status, (await response.json()).detail);
  }
}

void main();
