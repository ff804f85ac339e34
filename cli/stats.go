package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/spf13/pflag"

	"gantry/client"
)

// statsRow is a row of stats; fields are in the order of docker's JSON.
type statsRow struct {
	BlockIO, CPUPerc, Container, ID, MemPerc, MemUsage, Name, NetIO, PIDs string
}

func statsCommand() *command {
	return &command{
		name: "stats", aliases: "container stats, stats", use: "[OPTIONS] [CONTAINER...]",
		short: "Display a live stream of container(s) resource usage statistics", max: -1,
		setup: func(a *app, fs *pflag.FlagSet) runFunc {
			s := statistics{app: a}
			fs.BoolVarP(&s.all, "all", "a", false, "Show all containers (default shows just running)")
			fs.StringVar(&s.text, "format", "", formatHelp)
			fs.BoolVar(&s.once, "no-stream", false, "Disable streaming stats and only pull the first result")
			fs.BoolVar(&s.noTrunc, "no-trunc", false, "Do not truncate output")
			return s.run
		},
	}
}

// statistics is one run of stats.
type statistics struct {
	*app
	all, once, noTrunc bool
	text               string

	mu    sync.Mutex // guards what follows
	order []string   // containers in the order they are shown
	rows  map[string]*statsEntry
}

type statsEntry struct {
	row   statsRow
	ready chan struct{} // closed with the first sample, or the first error
	seen  bool
	err   error
	gone  bool
}

func (s *statistics) run(ctx context.Context, args []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := s.client()
	if err != nil {
		return err
	}
	s.rows = map[string]*statsEntry{}
	names := args
	if len(names) == 0 {
		if !s.once {
			if err := s.watch(ctx, c); err != nil {
				return err
			}
		}
		list, err := c.ContainerList(ctx, client.ContainerListOptions{All: s.all})
		if err != nil {
			return err
		}
		for _, ctr := range list {
			names = append(names, shortID(ctr.ID))
		}
	}
	var first []*statsEntry
	for _, n := range names {
		if e := s.add(ctx, c, n); e != nil {
			first = append(first, e)
		}
	}
	for _, e := range first {
		select {
		case <-e.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if len(args) > 0 {
		for _, e := range first {
			if e.err != nil {
				return e.err
			}
		}
	}
	if s.once {
		return s.print(s.out)
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		var b bytes.Buffer
		if s.terminalOut() {
			b.WriteString("\x1b[2J\x1b[H")
		}
		if err := s.print(&b); err != nil {
			return err
		}
		if _, err := b.WriteTo(s.out); err != nil {
			return err
		}
		if len(args) > 0 && s.empty() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *statistics) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.order) == 0
}

// add starts collecting from a container, unless that is going on already.
func (s *statistics) add(ctx context.Context, c *client.Client, name string) *statsEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.rows[name]; ok && !old.gone {
		return nil
	}
	e := &statsEntry{ready: make(chan struct{}), row: statsRow{
		BlockIO: "-- / --", CPUPerc: "--", Container: name, ID: "--", MemPerc: "--", MemUsage: "-- / --", Name: "--", NetIO: "-- / --", PIDs: "--",
	}}
	s.rows[name] = e
	s.order = append(s.order, name)
	go func() {
		err := s.collect(ctx, c, name, e)
		s.mu.Lock()
		defer s.mu.Unlock()
		e.gone, e.err = !s.once, err
		if !e.seen {
			e.seen = true
			close(e.ready)
		}
		for i, n := range s.order {
			if n == name && (!s.once || err != nil) {
				s.order = append(s.order[:i], s.order[i+1:]...)
				break
			}
		}
	}()
	return e
}

// collect reads a container's samples until they end.
func (s *statistics) collect(ctx context.Context, c *client.Client, name string, e *statsEntry) error {
	r, err := c.ContainerStats(ctx, name, !s.once)
	if err != nil {
		return err
	}
	defer r.Close()
	d := json.NewDecoder(r)
	for {
		var v container.StatsResponse
		if err := d.Decode(&v); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		s.mu.Lock()
		e.row = statsRowOf(name, &v, s.noTrunc)
		if !e.seen {
			e.seen = true
			close(e.ready)
		}
		s.mu.Unlock()
	}
}

// watch adds containers as they start.
func (s *statistics) watch(ctx context.Context, c *client.Client) error {
	f := client.Filters{}
	f.Add("type", string(events.ContainerEventType))
	f.Add("event", string(events.ActionStart))
	r, err := c.Events(ctx, "", "", f)
	if err != nil {
		return err
	}
	go func() {
		defer r.Close()
		d := json.NewDecoder(r)
		for {
			var m events.Message
			if d.Decode(&m) != nil {
				return
			}
			s.add(ctx, c, shortID(m.Actor.ID))
		}
	}()
	return nil
}

func (s *statistics) print(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.text
	if text == "" {
		text = s.config().StatsFormat
	}
	var rows []statsRow
	for _, n := range s.order {
		rows = append(rows, s.rows[n].row)
	}
	table := "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
	return printRows(w, resolveFormat(text, table, "", false), headers{
		"BlockIO": "BLOCK I/O", "CPUPerc": "CPU %", "Container": "CONTAINER", "ID": "CONTAINER ID", "MemPerc": "MEM %", "MemUsage": "MEM USAGE / LIMIT",
		"Name": "NAME", "NetIO": "NET I/O", "PIDs": "PIDS",
	}, rows)
}

func statsRowOf(name string, v *container.StatsResponse, noTrunc bool) statsRow {
	var rx, tx, read, write float64
	for _, n := range v.Networks {
		rx += float64(n.RxBytes)
		tx += float64(n.TxBytes)
	}
	for _, b := range v.BlkioStats.IoServiceBytesRecursive {
		switch {
		case b.Op == "":
		case b.Op[0] == 'r' || b.Op[0] == 'R':
			read += float64(b.Value)
		case b.Op[0] == 'w' || b.Op[0] == 'W':
			write += float64(b.Value)
		}
	}
	mem, limit := memoryUsed(&v.MemoryStats), float64(v.MemoryStats.Limit)
	perc := 0.0
	if limit != 0 {
		perc = mem / limit * 100
	}
	r := statsRow{
		BlockIO: fmt.Sprintf("%s / %s", units.HumanSizeWithPrecision(read, 3), units.HumanSizeWithPrecision(write, 3)),
		CPUPerc: fmt.Sprintf("%.2f%%", cpuPercent(v)), Container: name, ID: v.ID, MemPerc: fmt.Sprintf("%.2f%%", perc),
		MemUsage: fmt.Sprintf("%s / %s", units.BytesSize(mem), units.BytesSize(limit)), Name: trimSlash(v.Name),
		NetIO: fmt.Sprintf("%s / %s", units.HumanSizeWithPrecision(rx, 3), units.HumanSizeWithPrecision(tx, 3)), PIDs: fmt.Sprint(v.PidsStats.Current),
	}
	if !noTrunc {
		r.ID = shortID(r.ID)
	}
	return r
}

func trimSlash(s string) string {
	if len(s) > 0 && s[0] == '/' {
		return s[1:]
	}
	return s
}

// cpuPercent is the share of one CPU that was used between the two samples of v.
func cpuPercent(v *container.StatsResponse) float64 {
	used := float64(v.CPUStats.CPUUsage.TotalUsage) - float64(v.PreCPUStats.CPUUsage.TotalUsage)
	system := float64(v.CPUStats.SystemUsage) - float64(v.PreCPUStats.SystemUsage)
	cpus := float64(v.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(v.CPUStats.CPUUsage.PercpuUsage))
	}
	if system <= 0 || used <= 0 {
		return 0
	}
	return used / system * cpus * 100
}

// memoryUsed is the memory used but for file cache that could be dropped at once: total_inactive_file on cgroup v1,
// inactive_file on v2.
func memoryUsed(m *container.MemoryStats) float64 {
	if v, ok := m.Stats["total_inactive_file"]; ok && v < m.Usage {
		return float64(m.Usage - v)
	}
	if v := m.Stats["inactive_file"]; v < m.Usage {
		return float64(m.Usage - v)
	}
	return float64(m.Usage)
}
