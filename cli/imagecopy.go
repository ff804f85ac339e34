package cli

import (
	"context"
	"encoding/json"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/pflag"
)

func imageCopyCommand() *command {
	return &command{
		name: "copy", use: "SOURCE[:TAG|@DIGEST] TARGET[:TAG]", short: "Copy an image from one registry to another, with all its platforms and signatures", min: 2, max: 2,
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, args []string) error {
				auths := map[string]registry.AuthConfig{}
				for _, name := range args {
					ref, err := parseReference(name)
					if err != nil {
						return err
					}
					auth, err := a.credentials(ctx, ref.registryKey())
					if err != nil {
						return err
					}
					if auth != nil {
						auths[ref.registryKey()] = *auth
					}
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				r, err := c.ImageCopy(ctx, args[0], args[1], auths)
				if err != nil {
					return onlyGantry(c, err, "copy images")
				}
				defer r.Close()
				return a.progress(a.out, r, func(json.RawMessage) {})
			}
		},
	}
}
