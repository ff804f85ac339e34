package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// historyRow is a row of history; fields are in the order of docker's JSON.
type historyRow struct{ Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string }

func historyCommand() *command {
	return &command{
		name: "history", aliases: "image history, history", use: "[OPTIONS] IMAGE", short: "Show the history of an image", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.String("format", "", formatHelp)
			human := fs.BoolP("human", "H", true, "Print sizes and dates in human readable format")
			noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
			platform := fs.String("platform", "", "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
			quiet := fs.BoolP("quiet", "q", false, "Only show image IDs")
			return func(ctx context.Context, args []string) error {
				p, err := platformJSON(*platform)
				if err != nil {
					return err
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				items, err := c.ImageHistory(ctx, args[0], p)
				if err != nil {
					return err
				}
				table := "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
				if !*human {
					table = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
				}
				var rows []historyRow
				for _, h := range items {
					at := time.Unix(h.Created, 0)
					r := historyRow{Comment: h.Comment, CreatedAt: at.Format(time.RFC3339), CreatedBy: strings.ReplaceAll(h.CreatedBy, "\t", " "), ID: h.ID}
					if h.Created > 0 {
						r.CreatedSince = units.HumanDuration(time.Since(at)) + " ago"
					} else {
						r.CreatedSince = "N/A"
					}
					if r.Size = strconv.FormatInt(h.Size, 10); *human {
						r.Size = units.HumanSizeWithPrecision(float64(h.Size), 3)
					}
					if !*noTrunc {
						r.ID, r.CreatedBy = shortID(h.ID), ellipsis(r.CreatedBy, 45)
					}
					rows = append(rows, r)
				}
				return printRows(a.out, resolveFormat(*text, table, "{{.ID}}", *quiet), headers{
					"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
				}, rows)
			}
		},
	}
}
