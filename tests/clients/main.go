// Uses the client that openapi-generator generates for Go.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	client "github.com/GIT_USER_ID/GIT_REPO_ID"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: os.Args[1]}}
	api := client.NewAPIClient(configuration)
	ctx := context.Background()
	start, end := "2020-02-01", "2020-02-02T12:00:00Z"
	series, _, err := api.UsageAPI.GetOrganizationUsage(ctx, "a01b7").Start(start).End(end).Every("1hour").Execute()
	check(err)
	fmt.Println("series", series.Items[0].Date.Format(time.RFC3339), series.BytesUsedTotal)
	totals, _, err := api.UsageAPI.ListOrganizationTotals(ctx).Execute()
	check(err)
	fmt.Println("organizations", len(totals.Items))
	page, _, err := api.InventoryAPI.ListAssignments(ctx).Page(2).Size(3).Execute()
	check(err)
	fmt.Println("page", page.Page, page.Items[0].Simcard)
	_, response, err := api.UsageAPI.GetOrganizationUsage(ctx, "nobody").Start(start).End(end).Every("1day").Execute()
	problem := err.(*client.GenericOpenAPIError).Model().(client.Problem)
	fmt.Println(response.StatusCode, problem.Detail)
}
