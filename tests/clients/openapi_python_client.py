"""Uses the client that openapi-python-client generates."""

import sys

from simusage_client import Client
from simusage_client.api.inventory import list_assignments
from simusage_client.api.usage import get_organization_usage, list_organization_totals

client = Client(base_url=sys.argv[1])
interval = {"start": "2020-02-01", "end": "2020-02-02T12:00:00Z"}
series = get_organization_usage.sync("a01b7", client=client, every="1hour", **interval)
print("series", series.items[0].date.strftime("%Y-%m-%dT%H:%M:%SZ"), series.bytes_used_total)
print("organizations", len(list_organization_totals.sync(client=client).items))
page = list_assignments.sync(client=client, page=2, size=3)
print("page", page.page, page.items[0].simcard)
missing = get_organization_usage.sync_detailed("nobody", client=client, every="1day", **interval)
print(missing.status_code.value, missing.parsed.detail)
