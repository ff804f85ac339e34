package cli

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// diffRow is a row of diff; fields are in the order of docker's JSON.
type diffRow struct{ Path, Type string }

func diffCommand() *command {
	return &command{
		name: "diff", aliases: "container diff, diff", use: "CONTAINER",
		short: "Inspect changes to files or directories on a container's filesystem", min: 1, max: 1,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				if args[0] == "" {
					return errors.New("Container name cannot be empty") //nolint:staticcheck // docker's words
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				changes, err := c.ContainerDiff(ctx, args[0])
				if err != nil {
					return err
				}
				var rows []diffRow
				for _, ch := range changes {
					kind := "C"
					switch ch.Kind {
					case container.ChangeAdd:
						kind = "A"
					case container.ChangeDelete:
						kind = "D"
					}
					rows = append(rows, diffRow{Path: ch.Path, Type: kind})
				}
				return printRows(a.out, format{text: "{{.Type}} {{.Path}}"}, nil, rows)
			}
		},
	}
}
