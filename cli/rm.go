package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"gantry/client"
)

func rmCommand() *command {
	return &command{
		name: "rm", hidden: []string{"remove"}, aliases: "container rm, container remove, rm", use: "[OPTIONS] CONTAINER [CONTAINER...]",
		short: "Remove one or more containers", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var o client.ContainerRemoveOptions
			fs.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
			fs.BoolVarP(&o.Link, "link", "l", false, "Remove the specified link")
			fs.BoolVarP(&o.Volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				return a.eachPrint(args, func(id string) error {
					name := strings.Trim(id, "/")
					if name == "" {
						return errors.New("container name cannot be empty")
					}
					err := c.ContainerRemove(ctx, name, o)
					if o.Force && client.IsStatus(err, client.StatusNotFound) {
						return &toleratedError{err}
					}
					return err
				})
			}
		},
	}
}
