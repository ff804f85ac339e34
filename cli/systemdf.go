package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/pflag"
)

// dfRow is a row of system df; fields are in the order of docker's JSON.
type dfRow struct{ Active, Reclaimable, Size, TotalCount, Type string }

func dfCommand() *command {
	return &command{
		name: "df", use: "[OPTIONS]", short: "Show docker disk usage",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.String("format", "", formatHelp)
			verbose := fs.BoolP("verbose", "v", false, "Show detailed information on space usage")
			return func(ctx context.Context, _ []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				raw, err := c.DiskUsage(ctx, true) // the items give the active ones, whatever the server's version
				if err != nil {
					return err
				}
				u, err := parseUsage(raw)
				if err != nil {
					return err
				}
				if *verbose {
					return a.verboseUsage(u, *text)
				}
				return printRows(a.out, resolveFormat(*text, "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}", "", false), headers{
					"Active": "ACTIVE", "Reclaimable": "RECLAIMABLE", "Size": "SIZE", "TotalCount": "TOTAL", "Type": "TYPE",
				}, u.rows())
			}
		},
	}
}

// usage is the answer of /system/df, from servers of all versions.
type usage struct {
	layers     int64
	images     []image.Summary
	containers []container.Summary
	volumes    []volume.Volume
	builds     []build.CacheRecord
}

// parseUsage reads the lists of items: since API 1.52 inside a summary for each kind, before that at the top.
func parseUsage(raw json.RawMessage) (usage, error) {
	var in struct {
		system.DiskUsage
		LayersSize int64
		Images     []image.Summary
		Containers []container.Summary
		Volumes    []volume.Volume
		BuildCache []build.CacheRecord
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return usage{}, fmt.Errorf("decode disk usage: %w", err)
	}
	u := usage{in.LayersSize, in.Images, in.Containers, in.Volumes, in.BuildCache}
	if in.ImageUsage != nil && in.Images == nil {
		u.images = in.ImageUsage.Items
		if in.ImageUsage.TotalSize > 0 || u.layers == 0 {
			u.layers = in.ImageUsage.TotalSize
		}
	}
	if in.ContainerUsage != nil && in.Containers == nil {
		u.containers = in.ContainerUsage.Items
	}
	if in.VolumeUsage != nil && in.Volumes == nil {
		u.volumes = in.VolumeUsage.Items
	}
	if in.BuildCacheUsage != nil && in.BuildCache == nil {
		u.builds = in.BuildCacheUsage.Items
	}
	return u, nil
}

func (u usage) rows() []dfRow {
	return []dfRow{u.imageRow(), u.containerRow(), u.volumeRow(), u.buildRow()}
}

func row(kind string, total, active int, size, reclaimable int64) dfRow {
	r := dfRow{Active: fmt.Sprint(active), Reclaimable: units.HumanSize(float64(reclaimable)), Size: units.HumanSize(float64(size)), TotalCount: fmt.Sprint(total), Type: kind}
	if size > 0 {
		r.Reclaimable += fmt.Sprintf(" (%v%%)", reclaimable*100/size)
	}
	return r
}

func (u usage) imageRow() dfRow {
	active, used := 0, int64(0)
	for _, i := range u.images {
		if i.Containers != 0 {
			active++
			if i.Size != -1 && i.SharedSize != -1 {
				used += i.Size - i.SharedSize
			}
		}
	}
	return row("Images", len(u.images), active, u.layers, u.layers-used)
}

func (u usage) containerRow() dfRow {
	active := 0
	var size, free int64
	for _, c := range u.containers {
		size += c.SizeRw
		if c.State == container.StateRunning || c.State == container.StatePaused || c.State == container.StateRestarting {
			active++
		} else {
			free += c.SizeRw
		}
	}
	return row("Containers", len(u.containers), active, size, free)
}

func (u usage) volumeRow() dfRow {
	active := 0
	var size, free int64
	for _, v := range u.volumes {
		if v.UsageData == nil {
			continue
		}
		if v.UsageData.RefCount > 0 {
			active++
		}
		if v.UsageData.Size > 0 {
			size += v.UsageData.Size
			if v.UsageData.RefCount == 0 {
				free += v.UsageData.Size
			}
		}
	}
	return row("Local Volumes", len(u.volumes), active, size, free)
}

func (u usage) buildRow() dfRow {
	active := 0
	var size, free int64
	for _, b := range u.builds {
		if b.InUse {
			active++
		}
		if !b.Shared {
			size += b.Size
			if !b.InUse {
				free += b.Size
			}
		}
	}
	r := row("Build Cache", len(u.builds), active, size, free)
	r.Reclaimable = units.HumanSize(float64(free))
	return r
}

// verboseUsage prints each object.
func (a *app) verboseUsage(u usage, text string) error {
	if text != "" {
		f := resolveFormat(text, "", "", false)
		t, err := parseTemplate(f.text)
		if err != nil {
			return fmt.Errorf("failed to parse template: %w", err)
		}
		if err := t.Execute(a.out, map[string]any{"Images": u.images, "Containers": u.containers, "Volumes": u.volumes, "BuildCache": u.builds}); err != nil {
			return fmt.Errorf("failed to execute template: %w", err)
		}
		fmt.Fprintln(a.out)
		return nil
	}
	now := time.Now()
	fmt.Fprint(a.out, "Images space usage:\n\n")
	var images []imageRow
	for i := range u.images {
		images = append(images, imageRows(&u.images[i], now, true, false)[0])
	}
	table := format{table: true, text: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}"}
	if err := printRows(a.out, table, imageHeaders(), images); err != nil {
		return err
	}
	fmt.Fprint(a.out, "\nContainers space usage:\n\n")
	var containers []containerRow
	for i := range u.containers {
		r := psRow(&u.containers[i], now, true)
		r.Size = units.HumanSizeWithPrecision(float64(u.containers[i].SizeRw), 3)
		containers = append(containers, r)
	}
	table.text = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"
	if err := printRows(a.out, table, psHeaders(), containers); err != nil {
		return err
	}
	fmt.Fprint(a.out, "\nLocal Volumes space usage:\n\n")
	var volumes []volumeRow
	for i := range u.volumes {
		volumes = append(volumes, volumeRowOf(&u.volumes[i]))
	}
	table.text = "{{.Name}}\t{{.Links}}\t{{.Size}}"
	if err := printRows(a.out, table, volumeHeaders(), volumes); err != nil {
		return err
	}
	return a.verboseBuilds(u, now)
}

// buildRowView is a row of the build cache.
type buildRowView struct{ ID, CacheType, Size, Created, LastUsed, Usage, Shared string }

func (a *app) verboseBuilds(u usage, now time.Time) error {
	fmt.Fprintf(a.out, "\nBuild cache usage: %s\n\n", u.buildRow().Size)
	var rows []buildRowView
	for _, b := range u.builds {
		r := buildRowView{
			ID: b.ID, CacheType: b.Type, Size: units.HumanSizeWithPrecision(float64(b.Size), 3),
			Created: units.HumanDuration(now.Sub(b.CreatedAt)) + " ago", Usage: fmt.Sprint(b.UsageCount), Shared: yesNo(b.Shared),
		}
		if len(r.ID) > 12 {
			r.ID = r.ID[:12]
		}
		if b.InUse {
			r.ID += "*"
		}
		if b.LastUsedAt != nil {
			r.LastUsed = strings.TrimSpace(units.HumanDuration(now.Sub(*b.LastUsedAt)) + " ago")
		}
		rows = append(rows, r)
	}
	return printRows(a.out, format{table: true, text: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.Created}}\t{{.LastUsed}}\t{{.Usage}}\t{{.Shared}}"}, headers{
		"ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "Created": "CREATED", "LastUsed": "LAST USED", "Usage": "USAGE", "Shared": "SHARED",
	}, rows)
}
