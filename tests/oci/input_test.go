package oci_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestBadConfig gives create and run specifications that are wrong. Each ends with one line that says what is, and leaves nothing.
func TestBadConfig(t *testing.T) {
	r := setup(t, "true")
	path := filepath.Join(r.bundle, "config.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := func(change func(*specs.Spec)) string {
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
		r.edit(change)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	huge := `{"annotations":{"x":"` + strings.Repeat("a", 100<<20) + `"}}`
	for name, c := range map[string]struct{ config, want string }{
		"empty":          {"", "not JSON"},
		"cut":            {"{", "not JSON: line 1"},
		"null":           {"null", "config cannot be null"},
		"list":           {"[]", "array is no"},
		"garbage":        {"\x00\xff", "not JSON"},
		"trailing":       {string(good) + "x", "not JSON"},
		"deep":           {`{"a":` + strings.Repeat("[", 1<<20), "not JSON"},
		"deep object":    {strings.Repeat(`{"a":`, 1<<20), "not JSON"},
		"huge":           {huge, "larger than"},
		"nothing":        {"{}", "root"},
		"args type":      {`{"process":{"args":"x"}}`, "process.args: string is no"},
		"uid type":       {`{"process":{"user":{"uid":-1}}}`, "process.user.uid: number -1 is no"},
		"mounts type":    {`{"mounts":{}}`, "mounts: object is no"},
		"no process":     {text(func(s *specs.Spec) { s.Process = nil }), "process"},
		"no linux":       {text(func(s *specs.Spec) { s.Linux = nil }), "linux"},
		"no root":        {text(func(s *specs.Spec) { s.Root = nil }), "root"},
		"no args":        {text(func(s *specs.Spec) { s.Process.Args = nil }), "program"},
		"no cwd":         {text(func(s *specs.Spec) { s.Process.Cwd = "" }), "working directory"},
		"relative cwd":   {text(func(s *specs.Spec) { s.Process.Cwd = "x" }), "working directory"},
		"zero byte":      {text(func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} }), "zero byte"},
		"namespace":      {text(func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "x"}) }), `namespace`},
		"namespace path": {text(func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/no/such" }), "namespace"},
		"twice":          {text(func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) }), "namespace"},
		"rootfs":         {text(func(s *specs.Spec) { s.Root.Path = "/no/such" }), "root file system"},
		"rlimit":         {text(func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_X" }), "RLIMIT_X"},
		"mount source": {text(func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Type: "bind", Source: "/no/such", Options: []string{"rbind"}})
		}), "/no/such"},
		"mount type": {text(func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Type: "nosuchfs"}) }), "nosuchfs"},
		"sysctl":     {text(func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"no.such": "1"} }), "no.such"},
	} {
		if err := os.WriteFile(path, []byte(c.config), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"create", "run"} {
			res := r.run(verb, "bad")
			if res.code != 1 || !strings.Contains(res.err, c.want) || strings.Count(res.err, "\n") != 1 || strings.Contains(res.err, "goroutine") || res.out != "" || len(res.err) > 1000 {
				t.Errorf("%s: %s: exit code %d, %.2000q, want %q", name, verb, res.code, res.err, c.want)
			}
			if _, err := os.Stat(filepath.Join(r.root, "bad")); err == nil {
				t.Errorf("%s: %s left a state directory", name, verb)
				r.run("delete", "-f", "bad")
			}
			if left, _ := filepath.Glob("/sys/fs/cgroup/*" + r.group); len(left) > 0 {
				t.Errorf("%s: %s left %v", name, verb, left)
			}
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.fails(1, "not found", "create", "bad")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	r.fails(1, "not JSON", "create", "bad")
	r.fails(1, "chdir /no/such: no such file or directory", "create", "-b", "/no/such", "bad")
}

// TestSharedCgroup refuses to put two containers into one cgroup: the end of one would be the other's.
func TestSharedCgroup(t *testing.T) {
	r := setup(t, "sleep", "1000")
	r.must("run", "-d", "one")
	defer r.must("delete", "-f", "one")
	r.fails(1, "container's cgroup is not empty", "create", "two")
	if s := r.state("one"); s.Status != "running" {
		t.Errorf("%+v", s)
	}
	if _, err := os.Stat(filepath.Join(r.root, "two")); err == nil {
		t.Error("the refused one left its state")
	}
}
