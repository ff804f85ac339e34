package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"gantry/client"
)

// layerRow is a row of image tree.
type layerRow struct{ Compressed, CreatedBy, DiffID, Digest, Files, MediaType, Size, Waste string }

func imageTreeCommand() *command {
	return &command{
		name: "tree", use: "[OPTIONS] IMAGE", short: "Show the layers of an image: sizes, and what layers above replace or take away", min: 1, max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.String("format", "", formatHelp)
			human := fs.BoolP("human", "H", true, "Print sizes in human readable format")
			noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
			return func(ctx context.Context, args []string) error {
				return a.imageTree(ctx, args[0], *text, *human, *noTrunc)
			}
		},
	}
}

func (a *app) imageTree(ctx context.Context, ref, text string, human, noTrunc bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	l, err := c.ImageLayers(ctx, ref)
	if err != nil {
		return onlyGantry(c, err, "look into images")
	}
	size := func(n int64) string {
		if human {
			return units.HumanSizeWithPrecision(float64(n), 3)
		}
		return strconv.FormatInt(n, 10)
	}
	var rows []layerRow
	for _, one := range l.Layers {
		r := layerRow{
			Compressed: size(one.Compressed), CreatedBy: strings.ReplaceAll(one.CreatedBy, "\t", " "), DiffID: one.DiffID, Digest: one.Digest,
			Files: strconv.Itoa(one.Files), MediaType: one.MediaType, Size: size(one.Size), Waste: size(one.Waste),
		}
		if !noTrunc {
			r.DiffID, r.CreatedBy = shortID(one.DiffID), ellipsis(r.CreatedBy, 45)
		}
		rows = append(rows, r)
	}
	err = printRows(a.out, resolveFormat(text, "{{.DiffID}}\t{{.Size}}\t{{.Compressed}}\t{{.Waste}}\t{{.Files}}\t{{.CreatedBy}}", "", false), headers{
		"DiffID": "LAYER", "Digest": "DIGEST", "MediaType": "MEDIA TYPE", "Size": "SIZE", "Compressed": "BLOB", "Waste": "WASTE", "Files": "FILES", "CreatedBy": "CREATED BY",
	}, rows)
	if err == nil && text == "" {
		fmt.Fprintf(a.out, "\n%d layers, %s, of which %s wasted\n", len(rows), size(l.Size), size(l.Waste))
	}
	return err
}

// onlyGantry says of a request that another daemon does not know that it is this engine's alone.
func onlyGantry(c *client.Client, err error, what string) error {
	if client.IsStatus(err, client.StatusNotFound) && strings.Contains(err.Error(), "page not found") {
		return fmt.Errorf("the daemon at %s is not gantryd: it does not %s", c.Host(), what)
	}
	return err
}

// fileRow is a row of image diff.
type fileRow struct{ From, Path, Size, To, Type, What string }

func imageDiffCommand() *command {
	return &command{
		name: "diff", use: "[OPTIONS] IMAGE IMAGE", short: "List the files that differ between two images", min: 2, max: 2,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.String("format", "", formatHelp)
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				list, err := c.ImageCompare(ctx, args[0], args[1])
				if err != nil {
					return onlyGantry(c, err, "compare images")
				}
				var rows []fileRow
				for _, d := range list {
					rows = append(rows, fileRow{From: strconv.FormatInt(d.From, 10), Path: d.Path, To: strconv.FormatInt(d.To, 10), Type: d.Kind, What: strings.Join(d.What, ","), Size: signed(d.To - d.From)})
				}
				return printRows(a.out, resolveFormat(*text, "{{.Type}}\t{{.Size}}\t{{.What}}\t{{.Path}}", "", false), headers{
					"Type": "TYPE", "Size": "SIZE", "What": "CHANGED", "Path": "PATH", "From": "FROM", "To": "TO",
				}, rows)
			}
		},
	}
}

// signed is a change of a size.
func signed(n int64) string {
	switch {
	case n < 0:
		return "-" + units.HumanSizeWithPrecision(float64(-n), 3)
	case n > 0:
		return "+" + units.HumanSizeWithPrecision(float64(n), 3)
	}
	return "0B"
}

func imageSquashCommand() *command {
	return &command{
		name: "squash", use: "[OPTIONS] IMAGE [REPOSITORY[:TAG]]", short: "Make an image of one layer that has the files of another", min: 1, max: 2,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			message := fs.StringP("message", "m", "", "Comment in the history of the new image")
			return func(ctx context.Context, args []string) error {
				var repo, tag string
				if len(args) > 1 && args[1] != "" {
					ref, err := parseReference(args[1])
					if err != nil {
						return err
					}
					repo, tag = ref.repository(), ref.tag
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				id, err := c.ImageSquash(ctx, args[0], repo, tag, *message)
				if err != nil {
					return onlyGantry(c, err, "squash images")
				}
				fmt.Fprintln(a.out, id)
				return nil
			}
		},
	}
}

func imageSettleCommand() *command {
	return &command{
		name: "settle", use: "", short: "Replace compressed layers by what is missing to make them anew, now rather than in the background",
		setup: func(a *app, _ *pflag.FlagSet) runFunc {
			return func(ctx context.Context, _ []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				done, err := c.ImageSettle(ctx)
				if err != nil {
					return onlyGantry(c, err, "settle images")
				}
				fmt.Fprintf(a.out, "Layers: %d settled, %d kept\nTotal reclaimed space: %s\n", done.Layers, done.Kept, units.HumanSize(float64(done.SpaceReclaimed)))
				return nil
			}
		},
	}
}
