package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/oci"
	"gantry/oci/store"
)

// shown is a container as state and list print it.
type shown struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

// show makes the printed form of a container; of its specification it reads three fields.
func (a *app) show(s oci.State) (shown, error) {
	var config struct {
		Version string `json:"ociVersion"`
		Root    struct {
			Path string `json:"path"`
		} `json:"root"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := oci.ReadJSON(a.store.Config(s.ID), &config); err != nil {
		return shown{}, err
	}
	v := shown{Version: config.Version, ID: s.ID, Pid: s.Pid, Status: string(s.Status()), Bundle: s.Bundle, Rootfs: config.Root.Path, Created: time.Unix(0, s.Created).UTC(), Annotations: config.Annotations}
	if !filepath.IsAbs(v.Rootfs) {
		v.Rootfs = filepath.Join(s.Bundle, v.Rootfs)
	}
	if v.Status == string(specs.StateStopped) {
		v.Pid = 0
	}
	return v, nil
}

func (a *app) state() func(context.Context) error {
	return func(context.Context) error {
		s, err := a.read()
		if err != nil {
			return err
		}
		v, err := a.show(s)
		if err != nil {
			return err
		}
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(data)
		return err
	}
}

func (a *app) list() func(context.Context) error {
	format, quiet := "table", false
	a.text(&format, "format,f", "select one of: table or json")
	a.on(&quiet, "quiet,q", "display only container IDs")
	return func(context.Context) error {
		all, err := a.containers()
		switch {
		case err != nil:
			return err
		case quiet:
			for _, s := range all {
				fmt.Println(s.ID)
			}
			return nil
		case format == "json":
			return json.NewEncoder(os.Stdout).Encode(all)
		case format != "table":
			return errFormat
		}
		w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range all {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return w.Flush()
	}
}

var errFormat = errors.New("invalid format option")

func (a *app) containers() ([]shown, error) {
	entries, err := a.store.List()
	if errors.Is(err, fs.ErrNotExist) && !a.rootSet {
		return nil, nil // nothing has been created yet
	}
	if err != nil {
		return nil, err
	}
	var all []shown
	names := map[uint32]string{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed at this moment
		}
		s, err := a.store.Read(e.Name())
		var v shown
		if err == nil {
			v, err = a.show(s)
		}
		if err != nil {
			if _, gone := os.Lstat(filepath.Join(a.root, e.Name())); gone == nil && store.CheckID(e.Name()) == nil {
				fmt.Fprintf(os.Stderr, "load container %s: %v\n", e.Name(), err)
			}
			continue
		}
		uid := info.Sys().(*syscall.Stat_t).Uid
		if names[uid] == "" {
			names[uid] = userName(uid)
		}
		v.Owner = names[uid]
		all = append(all, v)
	}
	return all, nil
}

// userName is the user's name on this machine, "#UID" if it has none.
func userName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return "#" + number
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Split(s.Text(), ":"); len(fields) > 2 && fields[2] == number {
			return fields[0]
		}
	}
	return "#" + number
}

func (a *app) ps() func(context.Context) error {
	a.stopAt = 1
	format := "table"
	a.text(&format, "format,f", "select one of: table or json")
	return func(ctx context.Context) error {
		s, err := a.read()
		if err != nil {
			return err
		}
		pids, err := processes(s)
		switch {
		case err != nil:
			return a.hint(err)
		case format == "json":
			return json.NewEncoder(os.Stdout).Encode(pids)
		case format != "table":
			return errFormat
		}
		return psTable(ctx, pids, a.args[1:])
	}
}

// processes returns the process numbers of a container. One without a cgroup is known to have its init.
func processes(s oci.State) ([]int, error) {
	if s.Cgroup == "" {
		if s.Status() == specs.StateStopped {
			return nil, nil
		}
		return []int{s.Pid}, nil
	}
	g, err := cgroupOf(s)
	if err != nil {
		return nil, err
	}
	return g.Procs()
}

// psTable prints the lines of ps(1) that are of the given processes.
func psTable(ctx context.Context, pids []int, args []string) error {
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	out, err := exec.CommandContext(ctx, "ps", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	title, rest, _ := strings.Cut(string(out), "\n")
	column := slices.Index(strings.Fields(title), "PID")
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	fmt.Println(title)
	for line := range strings.Lines(rest) {
		line = strings.TrimSuffix(line, "\n")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if column >= len(fields) {
			return fmt.Errorf("unable to parse pid: %q", line)
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid: %w", err)
		}
		if slices.Contains(pids, pid) {
			fmt.Println(line)
		}
	}
	return nil
}
