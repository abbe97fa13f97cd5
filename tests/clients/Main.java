import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.InventoryApi;
import org.openapitools.client.api.UsageApi;
import org.openapitools.client.model.Series;

/** Uses the client that openapi-generator generates for Java (native). */
public class Main {
  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(arguments[0]);
    UsageApi usage = new UsageApi(client);
    String start = "2020-02-01";
    String end = "2020-02-02T12:00:00Z";
    Series series = series(usage, "a01b7", start, end, "1hour");
    System.out.println("series " + series.getItems().get(0).getDate().toInstant() + " "
        + series.getBytesUsedTotal());
    var totals = usage.listOrganizationTotals(null, null, null, null, null, null, null, null, null);
    System.out.println("organizations " + totals.getItems().size());
    var page = new InventoryApi(client).listAssignments(null, null, 2L, 3L, null, null);
    System.out.println("page " + page.getPage() + " " + page.getItems().get(0).getSimcard());
    try {
      series(usage, "nobody", start, end, "1day");
    } catch (ApiException error) {
      System.out.println(error.getCode() + " " + error.getResponseBody());
    }
  }

  private static Series series(UsageApi usage, String organization, String start, String end, String every)
      throws ApiException {
    return usage.getOrganizationUsage(
        organization, start, end, every, null, null, null, null, null, null);
  }
}
