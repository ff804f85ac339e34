package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

func waitCommand() *command {
	return &command{
		name: "wait", aliases: "container wait, wait", use: "CONTAINER [CONTAINER...]",
		short: "Block until one or more containers stop, then print their exit codes", min: 1, max: -1,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				return a.each(args, func(id string) error {
					wait, err := c.ContainerWait(ctx, id, "")
					if err != nil {
						return err
					}
					end, err := wait()
					if err != nil {
						return err
					}
					if end.Error != nil && end.Error.Message != "" {
						return errors.New(end.Error.Message)
					}
					fmt.Fprintln(a.out, end.StatusCode)
					return nil
				})
			}
		},
	}
}
