package cli

import (
	"context"
	"fmt"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/pflag"

	"gantry/client"
)

func imagePruneCommand() *command {
	return &command{
		name: "prune", use: "[OPTIONS]", short: "Remove unused images",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			f := filterValue{client.Filters{}}
			all := fs.BoolP("all", "a", false, "Remove all unused images, not just dangling ones")
			fs.Var(f, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			dry := fs.Bool("dry-run", false, dryRunHelp)
			return func(ctx context.Context, _ []string) error {
				if *dry {
					f.filters.Add("dangling", yesNo(!*all))
					return a.rehearsePrune(ctx, f.filters, "images")
				}
				warning := "WARNING! This will remove all dangling images."
				if *all {
					warning = "WARNING! This will remove all images without at least one container associated to them."
				}
				if !*force && !a.confirm(ctx, warning) {
					return nil
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				done, err := a.pruneImages(ctx, c, f.filters, *all)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%sTotal reclaimed space: %s\n", done.text, units.HumanSize(float64(done.bytes)))
				return nil
			}
		},
	}
}

func (a *app) pruneImages(ctx context.Context, c *client.Client, f client.Filters, all bool) (pruned, error) {
	f.Add("dangling", yesNo(!all))
	a.configFilters(f)
	r, err := c.ImagesPrune(ctx, f)
	if err != nil {
		return pruned{}, err
	}
	return pruned{listText("Deleted Images:", deletions(r.ImagesDeleted)), r.SpaceReclaimed}, nil
}

// deletions are the lines of a report about images.
func deletions(all []image.DeleteResponse) []string {
	var lines []string
	for _, d := range all {
		if d.Untagged != "" {
			lines = append(lines, "untagged: "+d.Untagged)
		} else {
			lines = append(lines, "deleted: "+d.Deleted)
		}
	}
	return lines
}
