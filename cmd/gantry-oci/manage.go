package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/oci"
)

func print(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// shown is a container as state and list print it.
type shown struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     string            `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func show(s oci.State) shown {
	v := shown{Version: specs.Version, ID: s.ID, Pid: s.Pid, Status: string(s.Status()), Bundle: s.Bundle, Created: s.Created.UTC().Format("2006-01-02T15:04:05.999999999Z"), Annotations: s.Spec.Annotations, Owner: "root"}
	if s.Spec.Root != nil {
		v.Rootfs = s.Spec.Root.Path
		if !filepath.IsAbs(v.Rootfs) {
			v.Rootfs = filepath.Join(s.Bundle, v.Rootfs)
		}
	}
	if v.Status == string(specs.StateStopped) {
		v.Pid = 0
	}
	return v
}

func (a *app) state(context.Context) error {
	args, err := a.parse(a.flags(), 1)
	if err != nil {
		return err
	}
	s, err := a.read(args[0])
	if err != nil {
		return err
	}
	return print(show(s))
}

func (a *app) list(context.Context) error {
	f := a.flags()
	format := f.String("format", "table", "table or json")
	f.StringVar(format, "f", "table", "table or json")
	quiet := f.Bool("quiet", false, "only IDs")
	f.BoolVar(quiet, "q", false, "only IDs")
	if _, err := a.parse(f, 0); err != nil {
		return err
	}
	entries, err := os.ReadDir(a.root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	all := []shown{}
	for _, e := range entries {
		s, err := a.read(e.Name())
		if err != nil {
			continue // being made or removed at this moment
		}
		all = append(all, show(s))
	}
	switch {
	case *quiet:
		for _, s := range all {
			fmt.Println(s.ID)
		}
		return nil
	case *format == "json":
		return json.NewEncoder(os.Stdout).Encode(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created, "root")
	}
	return w.Flush()
}

// signalOf reads "9", "KILL" or "SIGKILL".
func signalOf(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	names := map[string]syscall.Signal{
		"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14,
		"TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27,
		"WINCH": 28, "IO": 29, "PWR": 30, "SYS": 31,
	}
	if s, ok := names[strings.TrimPrefix(strings.ToUpper(name), "SIG")]; ok {
		return s, nil
	}
	return 0, errdefs.New(errdefs.InvalidParameter, "signal %q is unknown", name)
}

func (a *app) kill(context.Context) error {
	f := a.flags()
	all := f.Bool("all", false, "send it to every process")
	f.BoolVar(all, "a", false, "send it to every process")
	args, err := a.parse(f, 1)
	if err != nil {
		return err
	}
	name := "TERM"
	if len(args) > 1 {
		name = args[1]
	}
	sig, err := signalOf(name)
	if err != nil {
		return err
	}
	c, s, err := a.load(args[0])
	if err != nil {
		return err
	}
	if *all && c.Cgroup() != nil {
		pids, err := c.Cgroup().Procs()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		return nil
	}
	if s.Status() == specs.StateStopped {
		return errdefs.New(errdefs.Conflict, "container not running")
	}
	return c.Init().Signal(sig)
}

func (a *app) delete(ctx context.Context) error {
	f := a.flags()
	force := f.Bool("force", false, "kill it first if it runs")
	f.BoolVar(force, "f", false, "kill it first if it runs")
	args, err := a.parse(f, 1)
	if err != nil {
		return err
	}
	c, s, err := a.load(args[0])
	if *force && errdefs.Is(err, errdefs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if st := s.Status(); st != specs.StateStopped && st != specs.StateCreated && !*force {
		return errdefs.New(errdefs.Conflict, "cannot delete container %s that is not stopped: %s", args[0], st)
	}
	dir, err := a.dir(args[0])
	if err != nil {
		return err
	}
	return errors.Join(c.Delete(ctx), os.RemoveAll(dir))
}

func (a *app) ps(context.Context) error {
	f := a.flags()
	format := f.String("format", "table", "table or json")
	f.StringVar(format, "f", "table", "table or json")
	args, err := a.parse(f, 1)
	if err != nil {
		return err
	}
	cg, err := a.cgroup(args[0])
	if err != nil {
		return err
	}
	pids, err := cg.Procs()
	if err != nil {
		return err
	}
	if *format == "json" {
		return json.NewEncoder(os.Stdout).Encode(append([]int{}, pids...))
	}
	fmt.Println("PID")
	for _, pid := range pids {
		fmt.Println(pid)
	}
	return nil
}

func (a *app) cgroup(id string) (*cgroup.Cgroup, error) {
	c, _, err := a.load(id)
	if err != nil {
		return nil, err
	}
	if c.Cgroup() == nil {
		return nil, errdefs.New(errdefs.NotFound, "container %s has no cgroup", id)
	}
	return c.Cgroup(), nil
}

func (a *app) onCgroup(do func(*cgroup.Cgroup) error) error {
	args, err := a.parse(a.flags(), 1)
	if err != nil {
		return err
	}
	cg, err := a.cgroup(args[0])
	if err != nil {
		return err
	}
	return do(cg)
}

func (a *app) pause(context.Context) error  { return a.onCgroup((*cgroup.Cgroup).Freeze) }
func (a *app) resume(context.Context) error { return a.onCgroup((*cgroup.Cgroup).Thaw) }

func (a *app) update(context.Context) error {
	f := a.flags()
	file := f.String("resources", "", "file with the limits as JSON; - for standard input")
	f.StringVar(file, "r", "", "file with the limits as JSON; - for standard input")
	memory := f.Int64("memory", 0, "bytes")
	pids := f.Int64("pids-limit", 0, "number of tasks")
	args, err := a.parse(f, 1)
	if err != nil {
		return err
	}
	var r specs.LinuxResources
	switch *file {
	case "":
	case "-":
		if err := json.NewDecoder(io.LimitReader(os.Stdin, maxSpec)).Decode(&r); err != nil {
			return errdefs.New(errdefs.InvalidParameter, "limits: %w", err)
		}
	default:
		if err := readJSON(*file, &r); err != nil {
			return err
		}
	}
	if *memory != 0 {
		r.Memory = &specs.LinuxMemory{Limit: memory}
	}
	if *pids != 0 {
		r.Pids = &specs.LinuxPids{Limit: pids}
	}
	cg, err := a.cgroup(args[0])
	if err != nil {
		return err
	}
	return cg.Update(&r)
}

func (a *app) events(context.Context) error {
	f := a.flags()
	stats := f.Bool("stats", false, "print the statistics once")
	f.String("interval", "", "no effect")
	args, err := a.parse(f, 1)
	if err != nil {
		return err
	}
	if !*stats {
		return errdefs.New(errdefs.NotImplemented, "events without --stats is not supported")
	}
	c, _, err := a.load(args[0])
	if err != nil {
		return err
	}
	report, err := c.Report()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"type": "stats", "id": args[0], "data": report})
}
