package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

func loadCommand() *command {
	return &command{
		name: "load", aliases: "image load, load", use: "[OPTIONS]", short: "Load an image from a tar archive or STDIN",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			input := fs.StringP("input", "i", "", "Read from tar archive file, instead of STDIN")
			platforms := fs.StringSlice("platform", nil, `Load only the given platform(s). Formatted as a comma-separated list of "os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8").`)
			quiet := fs.BoolP("quiet", "q", false, "Suppress the load output")
			return func(ctx context.Context, _ []string) error { return a.load(ctx, *input, *platforms, *quiet) }
		},
	}
}

func (a *app) load(ctx context.Context, input string, platforms []string, quiet bool) error {
	for i, p := range platforms {
		var err error
		if platforms[i], err = platformJSON(p); err != nil {
			return err
		}
	}
	in := a.stdin
	if input != "" {
		f, err := os.Open(input)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	} else if a.terminalIn() {
		return errors.New("requested load from stdin, but stdin is empty")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	if !a.terminalOut() {
		quiet = true
	}
	resp, err := c.ImageLoad(ctx, in, quiet, platforms)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header["content-type"], "application/json") {
		return a.progress(a.out, resp.Body, nil)
	}
	_, err = io.Copy(a.out, resp.Body)
	return err
}
