package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/tests/harness"
)

// oci is one low-level runtime with a root of its own.
type oci struct{ program, root string }

// runtimes measures gantry-oci beside crun and runc: bundles and state on a tmpfs, as /run is. It leaves this mount namespace, which is the
// bench's own, without the v2 hierarchy of a hybrid layout: crun refuses to run where that has controllers.
func runtimes(n int) (rows []row, err error) {
	if err := syscall.Unmount("/sys/fs/cgroup/unified", syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
		return nil, fmt.Errorf("unmount /sys/fs/cgroup/unified: %w", err)
	}
	dir, err := os.MkdirTemp("/dev/shm", "gantry-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ours := oci{harness.Bin("gantry-oci"), filepath.Join(dir, "gantry")}
	plain, err := ours.bundle(dir, "plain", false, "/bin/true")
	if err != nil {
		return nil, err
	}
	filtered, err := ours.bundle(dir, "filtered", true, "/bin/true")
	if err != nil {
		return nil, err
	}
	waits, err := ours.bundle(dir, "waits", false, "/bin/sleep", "1000")
	if err != nil {
		return nil, err
	}
	limits := map[string][3]float64{"crun": {0.8, 0.5, 1}, "runc": {0.25, 0.5, 1}}
	for _, name := range []string{"crun", "runc"} {
		path, err := exec.LookPath(name)
		if err != nil {
			rows = append(rows, row{"P1", "gantry-oci beside " + name, "", name + " missing", "", "", "not measured"})
			continue
		}
		peer := oci{path, filepath.Join(dir, name)}
		for i, work := range []struct {
			id, what string
			do       func(oci) (before, each, after func() error)
		}{
			{"P1", "run of busybox true", func(r oci) (_, each, _ func() error) { return nil, r.does("run", "--bundle", plain, "b"), nil }},
			{"P6", "create, start, delete", func(r oci) (_, each, _ func() error) {
				return nil, inTurn(r.does("create", "--bundle", waits, "b"), r.does("start", "b"), r.does("delete", "--force", "b")), nil
			}},
			{"P4", "exec of true", func(r oci) (before, each, after func() error) {
				return r.does("run", "--detach", "--bundle", waits, "e"), r.does("exec", "e", "/bin/true"), r.does("delete", "--force", "e")
			}},
		} {
			begin, a, end := work.do(ours)
			peerBegin, b, peerEnd := work.do(peer)
			err := inTurn(begin, peerBegin)()
			var x, y time.Duration
			if err == nil {
				x, y, err = turns(n, a, b)
			}
			if err := errors.Join(err, inTurn(end)(), inTurn(peerEnd)()); err != nil {
				return nil, err
			}
			ratio := float64(x) / float64(y)
			rows = append(rows, row{work.id, "gantry-oci: " + work.what + ", beside " + name, ms(x), ms(y), fmt.Sprintf("%.2f x", ratio),
				fmt.Sprintf("<= %v x", limits[name][i]), verdict(ratio <= limits[name][i])})
		}
	}
	with, without, err := turns(n, ours.does("run", "--bundle", filtered, "b"), ours.does("run", "--bundle", plain, "b"))
	if err != nil {
		return nil, err
	}
	peak, err := ours.peak(waits)
	if err != nil {
		return nil, err
	}
	return append(rows,
		row{"P5", "gantry-oci: run with Docker's seccomp profile, beside without", ms(with), ms(without), "+" + ms(with-without), "<= 1 ms", verdict(with-without <= time.Millisecond)},
		row{"P1", "gantry-oci: peak memory of run", kb(peak), "", "", "< 8 MB", verdict(peak < 8000)}), nil
}

// bundle makes a bundle of a static busybox with the specification that the runtime itself proposes.
func (r oci) bundle(dir, name string, filter bool, args ...string) (string, error) {
	b := filepath.Join(dir, name)
	for _, d := range []string{"bin", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(b, "rootfs", d), 0o755); err != nil {
			return "", err
		}
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for _, applet := range []string{"true", "sleep"} {
		if err := os.WriteFile(filepath.Join(b, "rootfs/bin", applet), program, 0o755); err != nil {
			return "", err
		}
	}
	if err := finish(exec.Command(r.program, "spec", "--bundle", b)); err != nil {
		return "", err
	}
	file := filepath.Join(b, "config.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return "", err
	}
	s.Version = "1.0.2" // what the peers of a stable distribution know
	s.Process.Args, s.Process.Terminal = args, false
	if filter {
		if s.Linux.Seccomp, err = profile.GetDefaultProfile(&s); err != nil {
			return "", err
		}
	}
	if data, err = json.Marshal(s); err != nil {
		return "", err
	}
	return b, os.WriteFile(file, data, 0o644)
}

// does returns how to run a command of the runtime. Its output is not collected: a pipe would be the container's as long as that runs.
func (r oci) does(args ...string) func() error {
	return func() error {
		cmd := exec.Command(r.program, append([]string{"--root", r.root}, args...)...)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s %s: %w", r.program, strings.Join(args, " "), err)
		}
		return nil
	}
}

// inTurn runs steps up to the first that fails; nil ones are none.
func inTurn(steps ...func() error) func() error {
	return func() error {
		for _, s := range steps {
			if s == nil {
				continue
			}
			if err := s(); err != nil {
				return err
			}
		}
		return nil
	}
}

// peak returns the most memory that run has had resident, in kB, when its container runs.
func (r oci) peak(bundle string) (kb int, err error) {
	cmd := exec.Command(r.program, "--root", r.root, "run", "--bundle", bundle, "m")
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, r.does("kill", "m", "KILL")())
		_ = cmd.Wait() // its status is that of the killed container
	}()
	running := func() bool {
		out, err := exec.Command(r.program, "--root", r.root, "state", "m").Output()
		return err == nil && bytes.Contains(out, []byte(`"running"`))
	}
	for deadline := time.Now().Add(10 * time.Second); !running(); {
		if time.Now().After(deadline) {
			return 0, errors.New("the container of gantry-oci does not run")
		}
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return 0, errors.New("no VmHWM")
}
