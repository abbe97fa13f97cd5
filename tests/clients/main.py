"""Uses the client that openapi-generator generates for Python."""

import json
import sys

from openapi_client import ApiClient, Configuration, InventoryApi, UsageApi
from openapi_client.exceptions import NotFoundException

client = ApiClient(Configuration(host=sys.argv[1]))
usage = UsageApi(client)
interval = {"start": "2020-02-01", "end": "2020-02-02T12:00:00Z"}
series = usage.get_organization_usage("a01b7", every="1hour", **interval)
first = series.items[0].var_date if hasattr(series.items[0], "var_date") else series.items[0].date
print("series", first.strftime("%Y-%m-%dT%H:%M:%SZ"), series.bytes_used_total)
print("organizations", len(usage.list_organization_totals().items))
page = InventoryApi(client).list_assignments(page=2, size=3)
print("page", page.page, page.items[0].simcard)
try:
    usage.get_organization_usage("nobody", every="1day", **interval)
except NotFoundException as error:
    print(error.status, json.loads(error.body)["detail"])
