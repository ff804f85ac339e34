package cli

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"gantry/client"
)

func commitCommand() *command {
	return &command{
		name: "commit", aliases: "container commit, commit", use: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		short: "Create a new image from a container's changes", min: 1, max: 2,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var o client.CommitOptions
			var pause bool
			fs.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
			fs.VarP(&listValue{values: &o.Changes}, "change", "c", "Apply Dockerfile instruction to the created image")
			fs.StringVarP(&o.Comment, "message", "m", "", "Commit message")
			fs.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
			return func(ctx context.Context, args []string) error {
				if len(args) > 1 && args[1] != "" {
					ref, err := parseReference(args[1])
					if err != nil {
						return err
					}
					o.Repo, o.Tag = ref.repository(), ref.tag
				}
				o.NoPause = !pause
				c, err := a.client()
				if err != nil {
					return err
				}
				id, err := c.ContainerCommit(ctx, args[0], o)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, id)
				return nil
			}
		},
	}
}
