package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/pflag"
)

func pushCommand() *command {
	return &command{
		name: "push", aliases: "image push, push", use: "[OPTIONS] NAME[:TAG]", short: "Upload an image to a registry", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			all := fs.BoolP("all-tags", "a", false, "Push all tags of an image to the repository")
			fs.Bool("disable-content-trust", true, "Skip image signing")
			platform := fs.String("platform", "", "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
			compression := fs.String("compression", "", "Compress all layers as gzip[:level] or zstd[:level]; without it those that were pulled keep their digests")
			quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
			return func(ctx context.Context, args []string) error {
				return a.push(ctx, args[0], *platform, *compression, *all, *quiet)
			}
		},
	}
}

func (a *app) push(ctx context.Context, name, platform, compression string, all, quiet bool) error {
	p, err := platformJSON(platform)
	if err != nil {
		return err
	}
	ref, err := parseReference(name)
	if err != nil {
		return err
	}
	switch {
	case all && (ref.tag != "" || ref.digest != ""):
		return errors.New("tag can't be used with --all-tags/-a")
	case ref.digest != "":
		return errors.New("cannot push a digest reference")
	case !all && ref.tag == "":
		ref.tag = "latest"
		if !quiet {
			fmt.Fprintln(a.out, "Using default tag: latest")
		}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	auth, err := a.credentials(ctx, ref.registryKey())
	if err != nil {
		return err
	}
	if auth == nil {
		auth = &registry.AuthConfig{}
	}
	r, err := c.ImagePush(ctx, ref.familiar(), ref.tag, p, compression, *auth)
	if err != nil {
		return err
	}
	defer r.Close()
	var w io.Writer = a.out
	if quiet {
		w = io.Discard
	}
	// What comes out of band is the pushed manifest's digest, which docker does not print either, or a note.
	var instead auxprogress.ManifestPushedInsteadOfIndex
	err = a.progress(w, r, func(aux json.RawMessage) {
		var note auxprogress.ManifestPushedInsteadOfIndex
		if json.Unmarshal(aux, &note) == nil && note.ManifestPushedInsteadOfIndex {
			instead = note
		}
	})
	if err != nil {
		return err
	}
	if quiet {
		fmt.Fprintln(a.out, ref.full())
	}
	if instead.ManifestPushedInsteadOfIndex {
		fmt.Fprintf(a.err, "\n Info -> Not all multiplatform-content is present and only the available single-platform image was pushed\n         %s -> %s\n",
			instead.OriginalIndex.Digest, instead.SelectedManifest.Digest)
	}
	return nil
}
