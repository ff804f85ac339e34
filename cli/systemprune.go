package cli

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"gantry/client"
)

func systemPruneCommand() *command {
	return &command{
		name: "prune", use: "[OPTIONS]", short: "Remove unused data",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			f := filterValue{client.Filters{}}
			all := fs.BoolP("all", "a", false, "Remove all unused images not just dangling ones")
			fs.Var(f, "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			volumes := fs.Bool("volumes", false, "Prune anonymous volumes")
			dry := fs.Bool("dry-run", false, dryRunHelp)
			return func(ctx context.Context, _ []string) error {
				if *volumes && len(f.filters["until"]) > 0 {
					return errors.New(`ERROR: The "until" filter is not supported with "--volumes"`)
				}
				if *dry {
					kinds := []string{"containers", "networks", "images"}
					if *volumes {
						kinds = append(kinds, "volumes")
					}
					f.filters.Add("dangling", yesNo(!*all))
					return a.rehearsePrune(ctx, f.filters, kinds...)
				}
				if !*force && !a.confirm(ctx, pruneWarning(*all, *volumes, f.filters)) {
					return nil
				}
				return a.systemPrune(ctx, f.filters, *all, *volumes)
			}
		},
	}
}

func pruneWarning(all, volumes bool, f client.Filters) string {
	what := []string{"all stopped containers", "all networks not used by at least one container"}
	if volumes {
		what = append(what, "all anonymous volumes not used by at least one container")
	}
	if all {
		what = append(what, "all images without at least one container associated to them", "all build cache")
	} else {
		what = append(what, "all dangling images", "unused build cache")
	}
	s := "WARNING! This will remove:\n  - " + strings.Join(what, "\n  - ") + "\n"
	if len(f) > 0 {
		var given []string
		for k, vs := range f {
			for v := range vs {
				given = append(given, k+"="+v)
			}
		}
		sort.Strings(given)
		s += "\n  Items to be pruned will be filtered with:\n  - " + strings.Join(given, "\n  - ") + "\n"
	}
	return s
}

func (a *app) systemPrune(ctx context.Context, given client.Filters, all, volumes bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	copied := func() client.Filters { // each kind adds to its own
		f := client.Filters{}
		for k, vs := range given {
			for v := range vs {
				f.Add(k, v)
			}
		}
		return f
	}
	steps := []func() (pruned, error){
		func() (pruned, error) { return a.pruneContainers(ctx, c, copied()) },
		func() (pruned, error) { return a.pruneNetworks(ctx, c, copied()) },
	}
	if volumes {
		steps = append(steps, func() (pruned, error) { return a.pruneVolumes(ctx, c, copied()) })
	}
	steps = append(steps, func() (pruned, error) { return a.pruneImages(ctx, c, copied(), all) })
	steps = append(steps, func() (pruned, error) {
		r, err := c.BuildPrune(ctx, all, copied())
		if client.IsStatus(err, client.StatusNotImplemented) || client.IsStatus(err, client.StatusNotFound) {
			return pruned{}, nil // no builder, no cache
		}
		return pruned{listText("Deleted build cache objects:", r.CachesDeleted), r.SpaceReclaimed}, err
	})
	var freed uint64
	for _, step := range steps {
		done, err := step()
		if err != nil {
			return err
		}
		fmt.Fprint(a.out, done.text)
		freed += done.bytes
	}
	fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(freed)))
	return nil
}
