package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

func renameCommand() *command {
	return &command{
		name: "rename", aliases: "container rename, rename", use: "CONTAINER NEW_NAME", short: "Rename a container", min: 2, max: 2,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				from, to := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
				if from == "" || to == "" {
					return errors.New("Error: Neither old nor new names may be empty") //nolint:staticcheck // docker's words
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				if err := c.ContainerRename(ctx, from, to); err != nil {
					return fmt.Errorf("%w\nError: failed to rename container named %s", err, from)
				}
				return nil
			}
		},
	}
}
