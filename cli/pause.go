package cli

import (
	"context"

	"github.com/spf13/pflag"
)

func pauseCommand() *command {
	return &command{
		name: "pause", aliases: "container pause, pause", use: "CONTAINER [CONTAINER...]",
		short: "Pause all processes within one or more containers", min: 1, max: -1,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				return a.eachPrint(args, func(id string) error { return c.ContainerPause(ctx, id) })
			}
		},
	}
}

func unpauseCommand() *command {
	return &command{
		name: "unpause", aliases: "container unpause, unpause", use: "CONTAINER [CONTAINER...]",
		short: "Unpause all processes within one or more containers", min: 1, max: -1,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				return a.eachPrint(args, func(id string) error { return c.ContainerUnpause(ctx, id) })
			}
		},
	}
}
