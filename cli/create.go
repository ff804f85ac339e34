package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"gantry/client"
)

func createCommand() *command {
	return &command{
		name: "create", aliases: "container create, create", use: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
		short: "Create a new container", min: 1, max: -1, firstArgEndsFlags: true,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var f containerFlags
			f.add(a, fs)
			return func(ctx context.Context, args []string) error {
				req, err := f.request(fs, args, a.lookupEnv)
				if err == nil {
					err = f.checkPull()
				}
				if err != nil {
					return &exitError{code: 125, msg: a.runMessage("create", err), err: err}
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				id, err := a.create(ctx, c, &f, req)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, id)
				return nil
			}
		},
	}
}

// runMessage is the message of a run or create that failed before there was a container.
func (a *app) runMessage(verb string, err error) string {
	return fmt.Sprintf("%s: %v\n\nRun '%s %s --help' for more information", a.name, err, a.name, verb)
}

// checkPull checks --pull.
func (f *containerFlags) checkPull() error {
	switch f.pull {
	case "always", "missing", "never":
		return nil
	}
	return fmt.Errorf("invalid pull option: '%s': must be one of %q, %q or %q", f.pull, "always", "missing", "never")
}

// create makes the container, and pulls its image as --pull says. Warnings and the progress of the pull go to standard error.
func (a *app) create(ctx context.Context, c *client.Client, f *containerFlags, req container.CreateRequest) (id string, err error) {
	if f.useAPISocket {
		return "", errors.New("--use-api-socket is not supported yet")
	}
	a.proxyEnv(c, req.Config)
	if f.cidfile != "" {
		done, err := reserveCIDFile(f.cidfile)
		if err != nil {
			return "", err
		}
		defer func() {
			if derr := done(id); err == nil {
				err = derr
			}
		}()
	}
	ref, refErr := parseReference(req.Image)
	if refErr != nil && !isHex64(req.Image) { // 64 digits are an ID
		return "", refErr
	}
	if refErr == nil && ref.tag == "" && ref.digest == "" {
		ref.tag = "latest"
	}
	if f.pull == "always" && refErr == nil {
		if err := a.pullFor(ctx, c, f, ref); err != nil {
			return "", err
		}
	}
	resp, err := c.ContainerCreate(ctx, f.name, f.platform, req)
	if err != nil && f.pull == "missing" && refErr == nil && noSuchImage(err) {
		fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", ref)
		if err := a.pullFor(ctx, c, f, ref); err != nil {
			return "", err
		}
		resp, err = c.ContainerCreate(ctx, f.name, f.platform, req)
	}
	if err != nil {
		return "", err
	}
	for _, w := range resp.Warnings {
		fmt.Fprintln(a.err, "WARNING:", w)
	}
	return resp.ID, nil
}

func noSuchImage(err error) bool {
	msg := strings.ToLower(err.Error())
	return client.IsStatus(err, client.StatusNotFound) && (strings.Contains(msg, "no such image") || strings.Contains(msg, "does not match the specified platform"))
}

// pullFor pulls the image of a container that is to be made.
func (a *app) pullFor(ctx context.Context, c *client.Client, f *containerFlags, ref reference) error {
	auth, err := a.credentials(ctx, ref.registryKey())
	if err != nil {
		return err
	}
	r, err := c.ImagePull(ctx, ref.familiar(), ref.pullTag(), f.platform, false, auth)
	if err != nil {
		return err
	}
	defer r.Close()
	var w io.Writer = a.err
	if f.quiet {
		w = io.Discard
	}
	return a.progress(w, r, nil)
}

// pullTag is what the API's tag parameter of a pull has: the digest if there is one, else the tag.
func (r reference) pullTag() string {
	if r.digest != "" {
		return r.digest
	}
	return r.tag
}

// reserveCIDFile creates the file of --cidfile. The function returned writes the ID to it, or removes it when there is none.
func reserveCIDFile(path string) (func(id string) error, error) {
	if _, err := os.Stat(path); err == nil {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return func(id string) error {
		_, err := f.WriteString(id)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if id == "" {
			_ = os.Remove(path)
		}
		if err != nil {
			return fmt.Errorf("failed to write the container ID to the file (%s): %w", path, err)
		}
		return nil
	}, nil
}

// proxyEnv gives the container the proxies that config.json has for this daemon.
func (a *app) proxyEnv(c *client.Client, cfg *container.Config) {
	proxies := a.config().Proxies
	if len(proxies) == 0 {
		return
	}
	p, ok := proxies[c.Host()]
	if !ok {
		p = proxies["default"]
	}
	set := keyValues(cfg.Env)
	for _, k := range []struct{ key, env string }{
		{"httpProxy", "HTTP_PROXY"}, {"httpsProxy", "HTTPS_PROXY"}, {"ftpProxy", "FTP_PROXY"}, {"noProxy", "NO_PROXY"}, {"allProxy", "ALL_PROXY"},
	} {
		if p[k.key] == "" {
			continue
		}
		for _, name := range []string{k.env, strings.ToLower(k.env)} {
			if _, given := set[name]; !given {
				cfg.Env = append(cfg.Env, name+"="+p[k.key])
			}
		}
	}
}
