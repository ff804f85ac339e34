package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

func pullCommand() *command {
	return &command{
		name: "pull", aliases: "image pull, pull", use: "[OPTIONS] NAME[:TAG|@DIGEST]", short: "Download an image from a registry", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			all := fs.BoolP("all-tags", "a", false, "Download all tagged images in the repository")
			fs.Bool("disable-content-trust", true, "Skip image verification")
			platform := fs.String("platform", a.getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
			everything := fs.Bool("all-platforms", false, "Download the images of all platforms, so that they can be pushed on as one")
			quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
			return func(ctx context.Context, args []string) error {
				return a.pull(ctx, args[0], *platform, *everything, *all, *quiet)
			}
		},
	}
}

func (a *app) pull(ctx context.Context, name, platform string, allPlatforms, all, quiet bool) error {
	ref, err := parseReference(name)
	if err != nil {
		return err
	}
	switch {
	case all && (ref.tag != "" || ref.digest != ""):
		return errors.New("tag can't be used with --all-tags/-a")
	case !all && ref.tag == "" && ref.digest == "":
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
	r, err := c.ImagePull(ctx, ref.familiar(), ref.pullTag(), platform, allPlatforms, auth)
	if err != nil {
		return err
	}
	defer r.Close()
	var w io.Writer = a.out
	if quiet {
		w = io.Discard
	}
	if err := a.progress(w, r, nil); err != nil {
		return err
	}
	fmt.Fprintln(a.out, ref.full())
	return nil
}

// full is the name with its registry: docker.io/library/busybox:latest.
func (r reference) full() string {
	s := r.repository()
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest
	}
	return s
}

// repository is the name with its registry, without tag and digest.
func (r reference) repository() string { return r.domain + "/" + r.path }

// platformJSON turns os[/arch[/variant]] into the JSON that the API takes; empty stays empty.
func platformJSON(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if p == "" || len(parts) > 3 || strings.Trim(strings.ToLower(p), "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			return "", fmt.Errorf("invalid platform: %q is an invalid component of %q: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument", p, s)
		}
	}
	var p struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant,omitempty"`
	}
	p.OS = parts[0]
	if len(parts) > 1 {
		p.Architecture = parts[1]
	}
	if len(parts) > 2 {
		p.Variant = parts[2]
	}
	b, err := json.Marshal(p)
	return string(b), err
}
