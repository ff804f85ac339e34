package cli

import (
	"context"

	"github.com/spf13/pflag"
)

func killCommand() *command {
	return &command{
		name: "kill", aliases: "container kill, kill", use: "[OPTIONS] CONTAINER [CONTAINER...]",
		short: "Kill one or more running containers", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			signal := fs.StringP("signal", "s", "", "Signal to send to the container")
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				return a.eachPrint(args, func(id string) error { return c.ContainerKill(ctx, id, *signal) })
			}
		},
	}
}
