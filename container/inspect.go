package container

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gantry/sandbox"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// Inspect returns everything known of a container in Docker's shape.
func (s *Service) Inspect(ctx context.Context, ref string, size bool) (*container.InspectResponse, error) {
	c, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	r := c.Record()
	files := s.files(&r)
	if r.StartedAt.IsZero() { // never started: no files yet
		files = sandbox.Files{}
	}
	out := &container.InspectResponse{
		ID: r.ID, Created: stamp(r.Created), Path: r.Path, Args: notNil(r.Args), State: stateOf(&r), Image: r.ImageID.String(),
		ResolvConfPath: files.ResolvConf, HostnamePath: files.Hostname, HostsPath: files.Hosts, Name: "/" + r.Name, RestartCount: r.RestartCount,
		Driver: s.snapshots.Name(), Platform: "linux", HostConfig: hostConfig(r.Host), Config: r.Config, Mounts: mountPoints(&r),
		NetworkSettings: networkSettings(&r), ExecIDs: c.execIDs(),
	}
	out.HostConfig.Links = s.shownLinks(&r)
	if r.LogConfig.Driver == "json-file" {
		out.LogPath = r.LogConfig.Path
	}
	if sec, err := parseSecurity(r.Host.SecurityOpt); err == nil {
		if !r.StartedAt.IsZero() {
			sec = sec.onThisHost(r.Host.Privileged)
		}
		out.AppArmorProfile = sec.apparmor
	}
	if paths, err := s.snapshots.Paths(ctx, r.ID); err == nil {
		out.GraphDriver = &storage.DriverData{Name: s.snapshots.Name(), Data: paths}
	}
	if size {
		rw, _, err := s.snapshots.Usage(ctx, r.ID)
		if err != nil {
			return nil, fmt.Errorf("measure container %s: %w", r.ID, err)
		}
		root := rw
		if img, err := s.images.Get(ctx, r.ImageID.String()); err == nil {
			root += img.Size
		}
		out.SizeRw, out.SizeRootFs = &rw, &root
	}
	return out, nil
}

// hostConfig returns the host configuration as Docker shows it: empty lists as lists, not as null.
func hostConfig(h *container.HostConfig) *container.HostConfig {
	out := *h
	if out.PortBindings == nil {
		out.PortBindings = network.PortMap{}
	}
	out.DNSOptions, out.DNSSearch = notNil(out.DNSOptions), notNil(out.DNSSearch)
	out.DNS = notNil(out.DNS)
	out.BlkioWeightDevice = notNil(out.BlkioWeightDevice)
	return &out
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (c *Container) execIDs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, e := range c.execs {
		if e.State().Running {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// stamp formats a time as Docker does; the zero time is the year 1.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func stateOf(r *Record) *container.State {
	return &container.State{Status: container.ContainerState(r.State), Running: r.State.alive() || r.State == Restarting, Paused: r.State == Paused,
		Restarting: r.State == Restarting, OOMKilled: r.OOMKilled, Dead: r.State == Dead, Pid: r.Pid, ExitCode: r.ExitCode, Error: r.Error,
		StartedAt: stamp(r.StartedAt), FinishedAt: stamp(r.FinishedAt), Health: r.Health}
}

func mountPoints(r *Record) []container.MountPoint {
	points := []container.MountPoint{}
	for _, m := range r.Mounts {
		p := m.MountPoint
		if p.Type == "tmpfs" && m.FromLegacy { // Docker lists those of --tmpfs in HostConfig only
			continue
		}
		if p.Type == "volume" && p.Mode == "" && len(m.Flags) == 0 && m.FromLegacy {
			p.Mode = "z"
		}
		points = append(points, p)
	}
	return points
}

func networkSettings(r *Record) *container.NetworkSettings {
	ns := &container.NetworkSettings{Ports: network.PortMap{}, Networks: map[string]*network.EndpointSettings{}}
	for name, e := range r.Networks {
		ns.Networks[name] = e
	}
	if r.State.alive() && !r.Host.NetworkMode.IsContainer() {
		ns.SandboxID, ns.SandboxKey = r.ID, "/proc/"+strconv.Itoa(r.Pid)+"/ns/net"
		for p := range r.Config.ExposedPorts {
			ns.Ports[p] = nil
		}
		maps.Copy(ns.Ports, r.Ports)
	}
	return ns
}

// Summary returns the line of a container that `docker ps` shows.
func (r *Record) Summary(now time.Time) container.Summary {
	out := container.Summary{ID: r.ID, Names: []string{"/" + r.Name}, Image: r.Config.Image, ImageID: r.ImageID.String(), Command: command(r),
		Created: r.Created.Unix(), Ports: portSummaries(r), Labels: r.Config.Labels, State: container.ContainerState(r.State), Status: r.Status(now),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: r.Networks}, Mounts: mountPoints(r)}
	out.HostConfig.NetworkMode = string(r.Host.NetworkMode)
	out.HostConfig.Annotations = r.Host.Annotations
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Health = &container.HealthSummary{Status: container.NoHealthcheck}
	if r.Health != nil {
		out.Health.Status, out.Health.FailingStreak = r.Health.Status, r.Health.FailingStreak
	}
	return out
}

// command returns the command line as `docker ps` shows it: words with blanks in single quotes.
func command(r *Record) string {
	words := make([]string, 0, 1+len(r.Args))
	for _, w := range append([]string{r.Path}, r.Args...) {
		if strings.Contains(w, " ") {
			w = "'" + w + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func portSummaries(r *Record) []container.PortSummary {
	out := []container.PortSummary{}
	if !r.State.alive() {
		return out
	}
	all := network.PortMap{}
	for p := range r.Config.ExposedPorts {
		all[p] = nil
	}
	maps.Copy(all, r.Ports)
	for _, port := range sortedPorts(all) {
		if len(all[port]) == 0 {
			out = append(out, container.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())})
		}
		for _, b := range all[port] {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue
			}
			out = append(out, container.PortSummary{IP: b.HostIP, PrivatePort: port.Num(), PublicPort: uint16(n), Type: string(port.Proto())})
		}
	}
	return out
}

// Status returns the state in words, such as "Up 5 minutes (healthy)".
func (r *Record) Status(now time.Time) string {
	switch r.State {
	case Running, Paused:
		s := "Up " + ago(now.Sub(r.StartedAt))
		if r.State == Paused {
			return s + " (Paused)"
		}
		if r.Health != nil && r.Health.Status != container.NoHealthcheck && r.Health.Status != "" {
			text := string(r.Health.Status)
			if r.Health.Status == container.Starting {
				text = "health: starting"
			}
			s += " (" + text + ")"
		}
		return s
	case Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", r.ExitCode, ago(now.Sub(r.FinishedAt)))
	case Removing:
		return "Removal In Progress"
	case Dead:
		return "Dead"
	case Created:
		return "Created"
	case Exited:
		if r.FinishedAt.IsZero() {
			return ""
		}
		return fmt.Sprintf("Exited (%d) %s ago", r.ExitCode, ago(now.Sub(r.FinishedAt)))
	default:
		return string(r.State)
	}
}

// ago returns a duration in words, in the largest unit that is not yet zero.
func ago(d time.Duration) string {
	seconds := int(d.Seconds())
	minutes, hours := int(d.Minutes()), int(d.Hours()+0.5)
	switch {
	case seconds < 1:
		return "Less than a second"
	case seconds == 1:
		return "1 second"
	case seconds < 60:
		return fmt.Sprintf("%d seconds", seconds)
	case minutes == 1:
		return "About a minute"
	case minutes < 60:
		return fmt.Sprintf("%d minutes", minutes)
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	case hours < 24*7*2:
		return fmt.Sprintf("%d days", hours/24)
	case hours < 24*30*2:
		return fmt.Sprintf("%d weeks", hours/24/7)
	case hours < 24*365*2:
		return fmt.Sprintf("%d months", hours/24/30)
	default:
		return fmt.Sprintf("%d years", int(d.Hours())/24/365)
	}
}

// Mounting reports whether the container mounts the named volume, or anything at the path.
func (r *Record) Mounting(volumeOrPath string) bool {
	return slices.ContainsFunc(r.Mounts, func(m Mount) bool {
		return m.Name == volumeOrPath || m.Destination == path.Clean(volumeOrPath) || m.Source == volumeOrPath
	})
}
