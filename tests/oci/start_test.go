package oci_test

import (
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestStartEarly starts containers by every form of the command line, and tells by what the Go runtime writes (GODEBUG=inittrace) whether it was needed.
func TestStartEarly(t *testing.T) {
	if goruntime.GOARCH != "amd64" {
		t.Log("programs begin with the Go runtime here")
		return
	}
	r := setup(t, "sleep", "1000")
	log := filepath.Join(t.TempDir(), "log.json")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	hook := &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/true"}}}
	for _, c := range []struct {
		what   string
		early  bool
		global []string
		rest   []string
		hooks  *specs.Hooks
	}{
		{what: "plain", early: true},
		{what: "as containerd", early: true, global: []string{"--log", log, "--log-format", "json", "--systemd-cgroup"}},
		{what: "with equals signs", early: true, global: []string{"-log=" + log, "--log-format=text"}},
		{what: "a log to be made", global: []string{"--log", log + ".new"}},
		{what: "debug", global: []string{"--debug"}},
		{what: "other flags", global: []string{"--rootless", "false"}},
		{what: "flags behind", rest: []string{"--"}},
		{what: "a hook", hooks: hook},
	} {
		r.edit(func(s *specs.Spec) { s.Hooks = c.hooks })
		r.must("create", "c")
		args := append(append(append([]string{}, c.global...), "start"), append(c.rest, "c")...)
		cmd := r.command(args...)
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		res := r.finish(cmd)
		if early := !strings.Contains(res.err, "init "); res.code != 0 || early != c.early {
			t.Errorf("%s: %+v", c.what, res)
		}
		if s := r.state("c"); s.Status != "running" {
			t.Errorf("%s: %+v", c.what, s)
		}
		r.fails(1, "cannot start an already running container", "start", "c")
		r.must("delete", "--force", "c")
	}
	if _, err := os.Stat(log + ".new"); err != nil {
		t.Error(err)
	}
	r.fails(1, "container does not exist", "start", "c")
	r.fails(1, "invalid container ID format", "start", "../c")
	r.fails(1, "requires exactly 1 argument", "start")
	r.fails(1, "requires exactly 1 argument", "start", "c", "d")
	r.fails(1, "invalid log-format: xml", "--log-format", "xml", "start", "c")
	r.edit(func(s *specs.Spec) { s.Hooks = nil })
	r.must("create", "c")
	cmd := r.command("start", "c")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=/no/such")
	if res := r.finish(cmd); res.code != 1 || !strings.Contains(res.err, "notify.sock") { // which create has not prepared
		t.Errorf("for a service manager: %+v", res)
	}
	r.must("kill", "c", "KILL")
	eventually(t, "the end of init", func() bool { return r.state("c").Status == "stopped" })
	r.fails(1, "cannot start a container that has stopped", "start", "c")
	r.must("delete", "c")
}

// TestDeleteEarly deletes containers in every state, and those of which there is more to take back than the program sees before the Go runtime starts.
func TestDeleteEarly(t *testing.T) {
	if goruntime.GOARCH != "amd64" {
		t.Log("programs begin with the Go runtime here")
		return
	}
	r := setup(t, "sleep", "1000")
	hook := &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true"}}}
	for _, c := range []struct {
		what    string
		early   bool
		hooks   *specs.Hooks
		before  [][]string
		prepare func(dir string)
		args    []string
	}{
		{what: "running", early: true, before: [][]string{{"start", "c"}}, args: []string{"delete", "--force", "c"}},
		{what: "created", early: true, args: []string{"delete", "-f", "c"}},
		{what: "ended", early: true, before: [][]string{{"start", "c"}, {"kill", "c", "KILL"}}, args: []string{"delete", "c"}},
		{what: "created, without force", args: []string{"delete", "c"}},
		{what: "flags behind", before: [][]string{{"start", "c"}}, args: []string{"delete", "c", "--force"}},
		{what: "a hook", hooks: hook, before: [][]string{{"start", "c"}}, args: []string{"delete", "--force", "c"}},
		{what: "paused", before: [][]string{{"start", "c"}, {"pause", "c"}}, args: []string{"delete", "--force", "c"}},
		{what: "updated", before: [][]string{{"start", "c"}, {"update", "--cpu-share", "100", "c"}}, args: []string{"delete", "--force", "c"}},
		{what: "a hook's file", before: [][]string{{"start", "c"}}, prepare: func(dir string) { touch(t, filepath.Join(dir, "more")) }, args: []string{"delete", "--force", "c"}},
		{what: "an unreadable plan", before: [][]string{{"start", "c"}}, prepare: func(dir string) { touch(t, filepath.Join(dir, "end")) }, args: []string{"delete", "--force", "c"}},
	} {
		r.edit(func(s *specs.Spec) { s.Hooks = c.hooks })
		r.must("create", "c")
		for _, args := range c.before {
			r.must(args...)
		}
		if c.what == "ended" {
			eventually(t, "the end of init", func() bool { return r.state("c").Status == "stopped" })
		}
		if c.what == "running" {
			r.fails(1, "that is not stopped: running", "delete", "c")
		}
		dir := filepath.Join(r.root, "c")
		if c.prepare != nil {
			c.prepare(dir)
		}
		cmd := r.command(c.args...)
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		res := r.finish(cmd)
		if early := !strings.Contains(res.err, "init "); res.code != 0 || early != c.early {
			t.Errorf("%s: %+v", c.what, res)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: the container is still there", c.what)
		}
		if left, _ := filepath.Glob("/sys/fs/cgroup/*" + r.group); len(left) > 0 {
			t.Errorf("%s: cgroups left: %v", c.what, left)
		}
	}
}

// touch makes an empty file, or empties it.
func touch(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestStartOnce starts a container from many places at once: one of them does.
func TestStartOnce(t *testing.T) {
	r := setup(t, "sleep", "1000")
	for range 5 {
		r.must("create", "c")
		var mu sync.Mutex
		var wg sync.WaitGroup
		started := 0
		for range 6 {
			cmd := r.command("start", "c")
			wg.Go(func() {
				if cmd.Run() == nil {
					mu.Lock()
					started++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if s := r.state("c"); started != 1 || s.Status != "running" {
			t.Errorf("%d have started it: %+v", started, s)
		}
		r.must("delete", "--force", "c")
	}
}
