package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/pflag"

	"gantry/client"
)

// fsckRow is a row of system fsck.
type fsckRow struct {
	Area, Object, Problem string
	Repaired              bool
}

func fsckCommand() *command {
	return &command{
		name: "fsck", use: "[OPTIONS]", short: "Compare the engine's records with what the kernel and the disk have",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			repair := fs.Bool("repair", false, "Make records and reality agree again; what is damaged is fetched from where it came from")
			layers := fs.Bool("layers", false, "Read every blob and unpack every layer anew to compare it, too (default with --repair)")
			text := fs.String("format", "", formatHelp)
			return func(ctx context.Context, _ []string) error {
				if *repair && !fs.Changed("layers") {
					*layers = true // a repair leaves nothing damaged
				}
				return a.fsck(ctx, *repair, *layers, *text)
			}
		},
	}
}

// fsck prints the differences; the program ends with code 1 when any is left.
func (a *app) fsck(ctx context.Context, repair, layers bool, text string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var auths map[string]registry.AuthConfig
	if repair {
		if auths, err = a.allCredentials(ctx); err != nil {
			return err
		}
	}
	diffs, err := c.Fsck(ctx, repair, layers, auths)
	if err != nil {
		if client.IsStatus(err, client.StatusNotFound) {
			return fmt.Errorf("the daemon at %s is not gantryd: it has no fsck", c.Host())
		}
		return err
	}
	left := 0
	rows := make([]fsckRow, len(diffs))
	for i, d := range diffs {
		rows[i] = fsckRow{Area: d.Area, Object: d.Object, Problem: strings.TrimSpace(d.Problem), Repaired: d.Repaired}
		if !d.Repaired {
			left++
		}
	}
	if text == "" && len(rows) == 0 {
		fmt.Fprintln(a.out, "clean: records, kernel and disk agree")
		return nil
	}
	if text == "json" { // one array, so that an empty result is JSON too
		s, err := toJSON(rows)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, s)
	} else if err := printRows(a.out, resolveFormat(text, "{{.Area}}\t{{.Object}}\t{{.Problem}}\t{{.Repaired}}", "", false), headers{
		"Area": "AREA", "Object": "OBJECT", "Problem": "PROBLEM", "Repaired": "REPAIRED",
	}, rows); err != nil {
		return err
	}
	for _, d := range diffs {
		if d.Error != "" {
			fmt.Fprintf(a.err, "cannot repair %s %s: %s\n", d.Area, d.Object, d.Error)
		}
	}
	if left > 0 {
		return &exitError{code: 1}
	}
	return nil
}
