package cli

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"gantry/client"
)

func rmiCommand() *command {
	return &command{
		name: "rm", hidden: []string{"remove"}, aliases: "image rm, image remove, rmi", use: "[OPTIONS] IMAGE [IMAGE...]",
		short: "Remove one or more images", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			force := fs.BoolP("force", "f", false, "Force removal of the image")
			noPrune := fs.Bool("no-prune", false, "Do not delete untagged parents")
			dry := fs.Bool("dry-run", false, dryRunHelp)
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				if *dry {
					return a.each(args, func(ref string) error {
						r, err := c.RehearseRemove(ctx, ref, *force, *noPrune)
						if err == nil {
							a.printRehearsal(r)
						}
						return err
					})
				}
				return a.each(args, func(ref string) error {
					removed, err := c.ImageRemove(ctx, ref, *force, *noPrune)
					if err != nil {
						if *force && client.IsStatus(err, client.StatusNotFound) {
							return &toleratedError{err}
						}
						return err
					}
					for _, r := range removed {
						if r.Deleted != "" {
							fmt.Fprintln(a.out, "Deleted:", r.Deleted)
						} else {
							fmt.Fprintln(a.out, "Untagged:", r.Untagged)
						}
					}
					return nil
				})
			}
		},
	}
}
