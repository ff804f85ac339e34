package cli

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

func importCommand() *command {
	return &command{
		name: "import", aliases: "image import, import", use: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
		short: "Import the contents from a tarball to create a filesystem image", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var changes []string
			fs.VarP(&listValue{values: &changes}, "change", "c", "Apply Dockerfile instruction to the created image")
			message := fs.StringP("message", "m", "", "Set commit message for imported image")
			platform := fs.String("platform", "", "Set platform if server is multi-platform capable")
			return func(ctx context.Context, args []string) error {
				var repo string
				if len(args) > 1 {
					repo = args[1]
				}
				return a.importImage(ctx, args[0], repo, *message, *platform, changes)
			}
		},
	}
}

func (a *app) importImage(ctx context.Context, src, repo, message, platform string, changes []string) error {
	var tag string
	if repo != "" {
		ref, err := parseReference(repo)
		if err != nil {
			return err
		}
		repo, tag = ref.familiar(), ref.tag
		if ref.digest != "" {
			repo += "@" + ref.digest
		}
	}
	var in io.Reader
	from := "-"
	switch {
	case src == "-":
		in = a.stdin
	case strings.HasPrefix(src, "http://"), strings.HasPrefix(src, "https://"):
		from = src
	default:
		f, err := os.Open(src)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	r, err := c.ImageImport(ctx, in, from, repo, tag, message, platform, changes)
	if err != nil {
		return err
	}
	defer r.Close()
	return a.progress(a.out, r, nil)
}
