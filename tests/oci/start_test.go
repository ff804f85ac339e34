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
