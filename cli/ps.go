package cli

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"gantry/client"
)

const psTable = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"

// containerRow is a row of ps; fields are in the order of docker's JSON.
type containerRow struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks string
	Platform                                                                     *ocispec.Platform
	Ports, RunningFor, Size, State, Status                                       string

	labels map[string]string
}

// Label returns the value of a label.
func (r containerRow) Label(name string) string { return r.labels[name] }

func psHeaders() headers {
	return headers{
		"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
		"Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Names": "NAMES", "Labels": "LABELS",
		"Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
	}
}

func psCommand() *command {
	return &command{
		name: "ls", hidden: []string{"ps", "list"}, aliases: "container ls, container list, container ps, ps", use: "[OPTIONS]", short: "List containers",
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			o := psOptions{app: a, filters: client.Filters{}}
			fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
			fs.VarP(filterValue{o.filters}, "filter", "f", "Filter output based on conditions provided")
			fs.StringVar(&o.format, "format", "", formatHelp)
			fs.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all states)")
			fs.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all states)")
			fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
			fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
			fs.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
			return func(ctx context.Context, _ []string) error { return o.run(ctx) }
		},
	}
}

// listed is a container as ps needs it: of its networks only the names. Decoding all of them takes half of the time of a long list.
type listed struct {
	container.Summary
	NetworkSettings struct{ Networks map[string]struct{} }
}

type psOptions struct {
	*app
	all, latest, noTrunc, quiet, size bool
	last                              int
	format                            string
	filters                           client.Filters
}

func (o *psOptions) run(ctx context.Context) error {
	if o.quiet && o.format != "" {
		fmt.Fprintln(o.err, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
		if o.format != "raw" {
			o.format = ""
		}
	}
	text := o.format
	if text == "" && !o.quiet {
		text = o.config().PsFormat
	}
	table := strings.TrimPrefix(psTable, "table ")
	if o.size {
		table += "\t{{.Size}}"
	}
	f := resolveFormat(text, table, "{{.ID}}", o.quiet)
	if text == "raw" {
		f = format{text: rawContainer(o.quiet, o.size)}
	}
	list := client.ContainerListOptions{All: o.all, Limit: o.last, Size: o.size, Filters: o.filters}
	list.Brief = text == "" // what the table and -q show
	if o.latest && o.last == -1 {
		list.Limit = 1
	}
	if !list.Size && !o.quiet && o.format != "" && o.format != "json" {
		list.Size = f.uses("Size")
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	var containers []listed
	if err := c.ContainerListInto(ctx, list, &containers); err != nil {
		return err
	}
	now := time.Now()
	rows := make([]containerRow, len(containers))
	for i := range containers {
		ctr := &containers[i]
		rows[i] = psRow(&ctr.Summary, now, !o.noTrunc)
		rows[i].Networks = strings.Join(slices.Sorted(maps.Keys(ctr.NetworkSettings.Networks)), ",")
	}
	return printRows(o.out, f, psHeaders(), rows)
}

func rawContainer(quiet, size bool) string {
	if quiet {
		return "container_id: {{.ID}}"
	}
	s := "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n"
	if size {
		s += "size: {{.Size}}\n"
	}
	return s
}

func psRow(c *container.Summary, now time.Time, trunc bool) containerRow {
	r := containerRow{
		Command: c.Command, CreatedAt: time.Unix(c.Created, 0).String(), ID: c.ID, Image: c.Image, Labels: joinLabels(c.Labels), labels: c.Labels,
		Ports: portsText(c.Ports), RunningFor: units.HumanDuration(now.Sub(time.Unix(c.Created, 0))) + " ago",
		Size: sizeText(c.SizeRw, c.SizeRootFs), State: string(c.State), Status: c.Status,
	}
	if trunc {
		r.ID = shortID(c.ID)
		r.Command = ellipsis(r.Command, 20)
	}
	r.Command = strconv.Quote(r.Command)
	if r.Image == "" {
		r.Image = "<no image>"
	} else if trunc {
		r.Image = shortImage(c.Image, c.ImageID)
	}
	if d := c.ImageManifestDescriptor; d != nil {
		r.Platform = d.Platform
	}
	r.Names = namesText(c.Names, trunc)
	local := 0
	var mounts []string
	for _, m := range c.Mounts {
		if m.Driver == "local" {
			local++
		}
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if trunc {
			name = ellipsis(name, 15)
		}
		mounts = append(mounts, name)
	}
	r.LocalVolumes, r.Mounts = strconv.Itoa(local), strings.Join(mounts, ",")
	return r
}

// shortImage is an image as ps shows it: a short ID where the container was made by ID, and no digest beside a tag.
func shortImage(image, id string) string {
	if short := shortID(id); short != "" && short == shortID(image) {
		return short
	}
	if ref, err := parseReference(image); err == nil && ref.digest != "" && ref.tag != "" {
		ref.digest = ""
		return ref.String()
	}
	return image
}

// namesText joins a container's names without their slashes; links, which have a second slash, are left out when truncating.
func namesText(names []string, trunc bool) string {
	var out []string
	for _, n := range names {
		n = strings.TrimPrefix(n, "/")
		if trunc && strings.Contains(n, "/") {
			continue
		}
		out = append(out, n)
	}
	return strings.Join(out, ",")
}

func joinLabels(labels map[string]string) string {
	var out []string
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

func sizeText(rw, root int64) string {
	s := units.HumanSizeWithPrecision(float64(rw), 3)
	if root > 0 {
		s += fmt.Sprintf(" (virtual %s)", units.HumanSizeWithPrecision(float64(root), 3))
	}
	return s
}

// portsText lists ports as docker's ps does: runs of ports that follow each other are one range, unless a port is published under
// another number.
func portsText(ports []container.PortSummary) string {
	sort.Slice(ports, func(i, j int) bool {
		a, b := ports[i], ports[j]
		switch {
		case a.PrivatePort != b.PrivatePort:
			return a.PrivatePort < b.PrivatePort
		case a.IP != b.IP:
			return addrText(a.IP) < addrText(b.IP)
		case a.PublicPort != b.PublicPort:
			return a.PublicPort < b.PublicPort
		}
		return a.Type < b.Type
	})
	type key struct {
		ip    netip.Addr
		proto string
	}
	type run struct{ first, last uint16 }
	text := func(k key, r run) string {
		s := strconv.Itoa(int(r.first))
		if r.first != r.last {
			s += "-" + strconv.Itoa(int(r.last))
		}
		if k.ip.IsValid() {
			s = hostPort(k.ip, s) + "->" + s
		}
		return s + "/" + k.proto
	}
	runs := map[key]*run{}
	var order []key
	var out, mapped []string
	for _, p := range ports {
		k := key{proto: p.Type}
		if p.IP.IsValid() {
			if p.PublicPort != p.PrivatePort {
				mapped = append(mapped, fmt.Sprintf("%s->%d/%s", hostPort(p.IP, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
			k.ip = p.IP
		}
		r, ok := runs[k]
		switch {
		case !ok:
			runs[k] = &run{p.PrivatePort, p.PrivatePort}
			order = append(order, k)
		case p.PrivatePort == r.last+1:
			r.last++
		default:
			out = append(out, text(k, *r))
			*r = run{p.PrivatePort, p.PrivatePort}
		}
	}
	for _, k := range order {
		out = append(out, text(k, *runs[k]))
	}
	return strings.Join(append(out, mapped...), ", ")
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
