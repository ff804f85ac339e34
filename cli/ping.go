package cli

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
)

func pingCommand() *command {
	return &command{
		name: "ping", short: "Ask whether the daemon answers, and for its API version",
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, _ []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				h, err := c.Ping(ctx)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(a.out, "OK, API version %s\n", h["api-version"])
				return err
			}
		},
	}
}
