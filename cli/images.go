package cli

import (
	"context"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/pflag"

	"gantry/client"
)

// imageRow is a row of images; fields are in the order of docker's JSON.
type imageRow struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Repository string
	SharedSize, Size, Tag, UniqueSize, VirtualSize              string
}

func imageHeaders() headers {
	return headers{
		"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
		"Size": "SIZE", "Containers": "CONTAINERS", "VirtualSize": "SIZE", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
	}
}

func imagesCommand() *command {
	return &command{
		name: "ls", hidden: []string{"list"}, aliases: "image ls, image list, images", use: "[OPTIONS] [REPOSITORY[:TAG]]", short: "List images", max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			o := imagesOptions{app: a, filters: client.Filters{}}
			fs.BoolVarP(&o.all, "all", "a", false, "Show all images (default hides intermediate images)")
			fs.BoolVar(&o.digests, "digests", false, "Show digests")
			fs.VarP(filterValue{o.filters}, "filter", "f", "Filter output based on conditions provided")
			fs.StringVar(&o.format, "format", "", formatHelp)
			fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
			fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
			return func(ctx context.Context, args []string) error { return o.run(ctx, args) }
		},
	}
}

type imagesOptions struct {
	*app
	all, digests, noTrunc, quiet bool
	format                       string
	filters                      client.Filters
}

func (o *imagesOptions) run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] != "" {
		o.filters.Add("reference", args[0])
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	images, err := c.ImageList(ctx, client.ImageListOptions{All: o.all, Filters: o.filters})
	if err != nil {
		return err
	}
	text := o.format
	if text == "" && !o.quiet {
		text = o.config().ImagesFormat
	}
	table := "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	if o.digests {
		table = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	f := resolveFormat(text, table, "{{.ID}}", o.quiet)
	if text == "raw" {
		f = format{text: rawImage(o.quiet, o.digests)}
	}
	digests := o.digests || f.uses("Digest") && !o.quiet && f.text != "{{json .}}"
	now := time.Now()
	var rows []imageRow
	for i := range images {
		rows = append(rows, imageRows(&images[i], now, !o.noTrunc, digests)...)
	}
	return printRows(o.out, f, imageHeaders(), rows)
}

func rawImage(quiet, digests bool) string {
	switch {
	case quiet:
		return "image_id: {{.ID}}"
	case digests:
		return "repository: {{ .Repository }}\ntag: {{.Tag}}\ndigest: {{.Digest}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
	}
	return "repository: {{ .Repository }}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
}

// imageRows makes a row for each name of an image. Digests that belong to no tag get rows of their own.
func imageRows(img *image.Summary, now time.Time, trunc, digests bool) []imageRow {
	const none = "<none>"
	created := time.Unix(img.Created, 0)
	base := imageRow{
		Containers: "N/A", CreatedAt: created.String(), CreatedSince: units.HumanDuration(now.Sub(created)) + " ago", Digest: none, ID: img.ID,
		Repository: none, SharedSize: "N/A", Size: units.HumanSizeWithPrecision(float64(img.Size), 3), Tag: none, UniqueSize: "N/A",
		VirtualSize: units.HumanSize(float64(img.Size)),
	}
	if img.Created <= 0 {
		base.CreatedSince = "N/A"
	}
	if img.Containers >= 0 {
		base.Containers = itoa(img.Containers)
	}
	if img.SharedSize >= 0 {
		base.SharedSize = units.HumanSize(float64(img.SharedSize))
	}
	if img.Size >= 0 && img.SharedSize >= 0 {
		base.UniqueSize = units.HumanSize(float64(img.Size - img.SharedSize))
	}
	if trunc {
		base.ID = shortID(img.ID)
	}
	tags, sums := map[string][]string{}, map[string][]string{}
	var repos []string
	see := func(repo string) {
		if tags[repo] == nil && sums[repo] == nil {
			repos = append(repos, repo)
		}
	}
	for _, t := range img.RepoTags {
		if i := strings.LastIndexByte(t, ':'); i >= 0 && t != "<none>:<none>" {
			see(t[:i])
			tags[t[:i]] = append(tags[t[:i]], t[i+1:])
		}
	}
	for _, d := range img.RepoDigests {
		if repo, sum, ok := strings.Cut(d, "@"); ok && repo != none {
			see(repo)
			sums[repo] = append(sums[repo], sum)
		}
	}
	var rows []imageRow
	for _, repo := range repos {
		r := base
		r.Repository = repo
		if len(tags[repo]) == 0 {
			for _, s := range sums[repo] {
				if r.Digest = s; !digests {
					r.Digest = none
				}
				rows = append(rows, r)
				if !digests {
					break
				}
			}
			continue
		}
		for _, t := range tags[repo] {
			r.Tag = t
			if !digests || len(sums[repo]) == 0 {
				rows = append(rows, r)
				continue
			}
			for _, s := range sums[repo] {
				r.Digest = s
				rows = append(rows, r)
			}
		}
	}
	if len(rows) == 0 {
		rows = append(rows, base)
	}
	return rows
}
