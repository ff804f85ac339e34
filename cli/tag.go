package cli

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
)

func tagCommand() *command {
	return &command{
		name: "tag", aliases: "image tag, tag", use: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", min: 2, max: 2,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				if !isHex64(args[0]) {
					if _, err := parseReference(args[0]); err != nil {
						return fmt.Errorf("Error parsing reference: %q is not a valid repository/tag: %w", args[0], err) //nolint:staticcheck // docker's words
					}
				}
				ref, err := parseReference(args[1])
				if err != nil {
					return fmt.Errorf("Error parsing reference: %q is not a valid repository/tag: %w", args[1], err) //nolint:staticcheck // docker's words
				}
				if ref.digest != "" {
					return fmt.Errorf("refusing to create a tag with a digest reference")
				}
				if ref.tag == "" {
					ref.tag = "latest"
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				return c.ImageTag(ctx, args[0], ref.repository(), ref.tag)
			}
		},
	}
}
