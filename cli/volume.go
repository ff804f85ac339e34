package cli

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/pflag"

	"gantry/client"
)

// volumeRow is a row of volume ls; fields are in the order of docker's JSON.
type volumeRow struct {
	Availability, Driver, Group, Labels, Links, Mountpoint, Name, Scope, Size, Status string

	labels map[string]string
}

// Label returns the value of a label.
func (r volumeRow) Label(name string) string { return r.labels[name] }

func volumeHeaders() headers {
	return headers{
		"Availability": "AVAILABILITY", "Driver": "DRIVER", "Group": "GROUP", "Labels": "LABELS", "Links": "LINKS", "Mountpoint": "MOUNTPOINT",
		"Name": "VOLUME NAME", "Scope": "SCOPE", "Size": "SIZE", "Status": "STATUS",
	}
}

func volumeRowOf(v *volume.Volume) volumeRow {
	r := volumeRow{
		Availability: "N/A", Driver: v.Driver, Group: "N/A", Labels: joinLabels(v.Labels), Links: "N/A", Mountpoint: v.Mountpoint, Name: v.Name,
		Scope: v.Scope, Size: "N/A", Status: "N/A", labels: v.Labels,
	}
	if u := v.UsageData; u != nil {
		r.Links, r.Size = itoa(u.RefCount), units.HumanSize(float64(u.Size))
		if u.Size < 0 {
			r.Size = "N/A"
		}
	}
	return r
}

func volumeLsCommand() *command {
	return &command{
		name: "ls", hidden: []string{"list"}, aliases: "volume ls, volume list", use: "[OPTIONS]", short: "List volumes",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			f := filterValue{client.Filters{}}
			cluster := fs.Bool("cluster", false, "Display only cluster volumes, and use cluster volume list formatting")
			_ = fs.MarkHidden("cluster")
			fs.VarP(f, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
			text := fs.String("format", "", formatHelp)
			quiet := fs.BoolP("quiet", "q", false, "Only display volume names")
			return func(ctx context.Context, _ []string) error {
				if *cluster {
					return errors.New("this engine has no cluster volumes")
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				list, err := c.VolumeList(ctx, f.filters)
				if err != nil {
					return err
				}
				if *text == "" && !*quiet {
					*text = a.config().VolumesFormat
				}
				vols := list.Volumes
				sort.Slice(vols, func(i, j int) bool { return naturalLess(vols[i].Name, vols[j].Name) })
				var rows []volumeRow
				for i := range vols {
					rows = append(rows, volumeRowOf(&vols[i]))
				}
				form := resolveFormat(*text, "{{.Driver}}\t{{.Name}}", "{{.Name}}", *quiet)
				if *text == "raw" {
					form = format{text: "name: {{.Name}}\ndriver: {{.Driver}}\n"}
				}
				return printRows(a.out, form, volumeHeaders(), rows)
			}
		},
	}
}

func volumeCreateCommand() *command {
	return &command{
		name: "create", use: "[OPTIONS] [VOLUME]", short: "Create a volume", max: 1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			var r volume.CreateRequest
			var labels []string
			var name string
			fs.StringVarP(&r.Driver, "driver", "d", "local", "Specify volume driver name")
			fs.Var(&listValue{values: &labels, check: checkLabel}, "label", "Set metadata for a volume")
			fs.StringVar(&name, "name", "", "Specify volume name")
			_ = fs.MarkHidden("name")
			fs.VarP(&mapValue{values: &r.DriverOpts}, "opt", "o", "Set driver specific options")
			return func(ctx context.Context, args []string) error {
				r.Name = name
				if len(args) == 1 {
					if name != "" {
						return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
					}
					r.Name = args[0]
				}
				r.Labels = keyValues(labels)
				c, err := a.client()
				if err != nil {
					return err
				}
				v, err := c.VolumeCreate(ctx, r)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, v.Name)
				return nil
			}
		},
	}
}

func volumeInspectCommand() *command {
	return &command{
		name: "inspect", use: "[OPTIONS] VOLUME [VOLUME...]", short: "Display detailed information on one or more volumes", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			text := fs.StringP("format", "f", "", inspectFormatHelp)
			return func(ctx context.Context, args []string) error {
				return a.inspect(ctx, *text, args, []kind{volumeKind()})
			}
		},
	}
}

func volumeRmCommand() *command {
	return &command{
		name: "rm", hidden: []string{"remove"}, aliases: "volume rm, volume remove", use: "[OPTIONS] VOLUME [VOLUME...]",
		short: "Remove one or more volumes. You cannot remove a volume that is in use by a container.", min: 1, max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			force := fs.BoolP("force", "f", false, "Force the removal of one or more volumes")
			return func(ctx context.Context, args []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				return a.eachPrint(args, func(name string) error {
					err := c.VolumeRemove(ctx, name, *force)
					if *force && client.IsStatus(err, client.StatusNotFound) {
						return nil
					}
					return err
				})
			}
		},
	}
}

func volumePruneCommand() *command {
	return &command{
		name: "prune", use: "[OPTIONS]", short: "Remove unused local volumes",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			f := filterValue{client.Filters{}}
			all := fs.BoolP("all", "a", false, "Remove all unused volumes, not just anonymous ones")
			fs.Var(f, "filter", `Provide filter values (e.g. "label=<label>")`)
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			return func(ctx context.Context, _ []string) error {
				c, err := a.client()
				if err != nil {
					return err
				}
				if _, err := c.Ping(ctx); err != nil {
					return err
				}
				warning := "WARNING! This will remove anonymous local volumes not used by at least one container."
				if c.LessVersion("1.42") { // such a server knows no difference
					if *all {
						return fmt.Errorf(`"--all" requires API version 1.42, but the Docker daemon API version is %s`, c.Version())
					}
					warning = "WARNING! This will remove all local volumes not used by at least one container."
				} else if *all {
					if len(f.filters["all"]) > 0 {
						return errors.New("conflicting options: cannot specify both --all and --filter all=1")
					}
					f.filters.Add("all", "true")
					warning = "WARNING! This will remove all local volumes not used by at least one container."
				}
				if !*force && !a.confirm(ctx, warning) {
					return nil
				}
				done, err := a.pruneVolumes(ctx, c, f.filters)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%sTotal reclaimed space: %s\n", done.text, units.HumanSize(float64(done.bytes)))
				return nil
			}
		},
	}
}

func (a *app) pruneVolumes(ctx context.Context, c *client.Client, f client.Filters) (pruned, error) {
	a.configFilters(f)
	r, err := c.VolumesPrune(ctx, f)
	if err != nil {
		return pruned{}, err
	}
	return pruned{listText("Deleted Volumes:", r.VolumesDeleted), r.SpaceReclaimed}, nil
}
