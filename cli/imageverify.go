package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// verdictRow is a row of image verify.
type verdictRow struct{ Allowed, Digest, Image, Policy, Reasons, Scope string }

func imageVerifyCommand() *command {
	return &command{
		name: "verify", use: "[OPTIONS] IMAGE", short: "Check an image's signatures by the daemon's policy, or by a key", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			key := fs.String("key", "", "File with public keys in PEM, one of which is to have signed the image, instead of the policy")
			text := fs.String("format", "", formatHelp)
			return func(ctx context.Context, args []string) error { return a.verifyImage(ctx, args[0], *key, *text) }
		},
	}
}

// verifyImage prints what is made of an image by each of its names; the program ends with code 1 unless it may be used by one.
func (a *app) verifyImage(ctx context.Context, name, keyFile, text string) error {
	var keys []byte
	if keyFile != "" {
		var err error
		if keys, err = os.ReadFile(keyFile); err != nil {
			return err
		}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	ref, err := parseReference(name)
	if err != nil {
		return err
	}
	auth, err := a.credentials(ctx, ref.registryKey())
	if err != nil {
		return err
	}
	verdicts, err := c.ImageVerify(ctx, name, keys, auth)
	if err != nil {
		return onlyGantry(c, err, "verify images")
	}
	allowed := false
	var rows []verdictRow
	for _, v := range verdicts {
		allowed = allowed || v.Allowed
		rows = append(rows, verdictRow{Allowed: fmt.Sprint(v.Allowed), Digest: v.Digest, Image: v.Image, Policy: v.Policy, Reasons: strings.Join(v.Reasons, "; "), Scope: v.Scope})
	}
	err = printRows(a.out, resolveFormat(text, "{{.Image}}\t{{.Allowed}}\t{{.Scope}}\t{{.Reasons}}", "", false), headers{
		"Image": "IMAGE", "Allowed": "ALLOWED", "Scope": "SCOPE", "Reasons": "WHY", "Digest": "DIGEST", "Policy": "POLICY",
	}, rows)
	if err == nil && !allowed {
		return &exitError{code: 1}
	}
	return err
}
