package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"gantry/client"
)

// searchRow is a row of search; fields are in the order of docker's JSON.
type searchRow struct{ Description, IsAutomated, IsOfficial, Name, StarCount string }

func searchCommand() *command {
	return &command{
		name: "search", use: "[OPTIONS] TERM", short: "Search Docker Hub for images", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			f := filterValue{client.Filters{}}
			fs.VarP(f, "filter", "f", "Filter output based on conditions provided")
			text := fs.String("format", "", "Pretty-print search using a Go template")
			limit := fs.Int("limit", 0, "Max number of search results")
			noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
			return func(ctx context.Context, args []string) error {
				if f.filters["is-automated"] != nil {
					return fmt.Errorf("the is-automated filter is deprecated, and no longer supported by Docker Hub")
				}
				auth, err := a.credentials(ctx, indexServer)
				if err != nil {
					return err
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				results, err := c.ImageSearch(ctx, args[0], *limit, f.filters, auth)
				if err != nil {
					return err
				}
				var rows []searchRow
				for _, r := range results {
					d := strings.ReplaceAll(strings.ReplaceAll(r.Description, "\n", " "), "\r", " ")
					if !*noTrunc {
						d = ellipsis(d, 45)
					}
					row := searchRow{Description: d, Name: r.Name, StarCount: fmt.Sprint(r.StarCount)}
					if r.IsOfficial {
						row.IsOfficial = "[OK]"
					}
					rows = append(rows, row)
				}
				return printRows(a.out, resolveFormat(*text, "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}", "", false), headers{
					"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL", "IsAutomated": "AUTOMATED",
				}, rows)
			}
		},
	}
}
