package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"
)

func topCommand() *command {
	return &command{
		name: "top", aliases: "container top, top", use: "CONTAINER [ps OPTIONS]",
		short: "Display the running processes of a container", min: 1, max: -1, firstArgEndsFlags: true,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				top, err := c.ContainerTop(ctx, args[0], strings.Join(args[1:], " "))
				if err != nil {
					return err
				}
				var page bytes.Buffer
				w := tabwriter.NewWriter(&page, 20, 1, 3, ' ', 0)
				fmt.Fprintln(w, strings.Join(top.Titles, "\t"))
				for _, p := range top.Processes {
					fmt.Fprintln(w, strings.Join(p, "\t"))
				}
				if err := w.Flush(); err != nil {
					return err
				}
				_, err = page.WriteTo(a.out)
				return err
			}
		},
	}
}
