package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

func saveCommand() *command {
	return &command{
		name: "save", aliases: "image save, save", use: "[OPTIONS] IMAGE [IMAGE...]",
		short: "Save one or more images to a tar archive (streamed to STDOUT by default)", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
			platforms := fs.StringSlice("platform", nil, `Save only the given platform(s). Formatted as a comma-separated list of "os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8")`)
			return func(ctx context.Context, args []string) error {
				for i, p := range *platforms {
					j, err := platformJSON(p)
					if err != nil {
						return err
					}
					(*platforms)[i] = j
				}
				if *output == "" && a.terminalOut() {
					return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
				}
				if err := checkOutput(*output); err != nil {
					return fmt.Errorf("failed to save image: %w", err)
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				r, err := c.ImageSave(ctx, args, *platforms)
				if err != nil {
					return err
				}
				defer r.Close()
				return a.writeOutput(*output, r)
			}
		},
	}
}
