package oci_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

func TestHelp(t *testing.T) {
	r := &runtime{t: t, root: t.TempDir()}
	for _, args := range [][]string{{}, {"--help"}, {"-h"}, {"help"}, {"h"}} {
		if res := r.run(args...); res.code != 0 || !strings.Contains(res.out, "COMMANDS:") || res.err != "" {
			t.Errorf("%v: %+v", args, res)
		}
	}
	verbs := []string{"checkpoint", "create", "delete", "events", "exec", "kill", "list", "pause", "ps", "restore", "resume", "run", "spec", "start", "state", "update", "features"}
	for _, v := range verbs {
		for _, args := range [][]string{{v, "--help"}, {v, "-h"}, {"help", v}} {
			if res := r.run(args...); res.code != 0 || !strings.Contains(res.out, "gantry-oci "+v) || res.err != "" {
				t.Errorf("%v: %+v", args, res)
			}
		}
		if res := r.run(v, "--nosuch"); res.code != 1 || !strings.Contains(res.err, "flag provided but not defined: -nosuch") || !strings.Contains(res.err, "USAGE:") {
			t.Errorf("%s --nosuch: %+v", v, res)
		}
	}
	for _, v := range []string{"create", "run", "state", "start", "delete", "pause", "resume", "update", "events", "checkpoint", "restore"} {
		r.fails(1, `requires exactly 1 argument(s)`, v)
		r.fails(1, `requires exactly 1 argument(s)`, v, "a", "b")
	}
	r.fails(1, `requires a minimum of 1 argument(s)`, "exec")
	r.fails(1, `requires a minimum of 1 argument(s)`, "kill")
	r.fails(1, `requires a maximum of 2 argument(s)`, "kill", "a", "9", "x")
	r.fails(3, "No help topic for 'nosuch'", "nosuch")
	r.fails(1, "flag provided but not defined: -nosuch", "--nosuch", "list")
	for _, args := range [][]string{{"--version"}, {"-v"}, {"-version"}} {
		if res := r.run(args...); res.code != 0 || !strings.HasPrefix(res.out, "gantry-oci version ") || !strings.Contains(res.out, "\nspec: "+specs.Version+"\n") {
			t.Errorf("%v: %+v", args, res)
		}
	}
	r.fails(1, "invalid log-format: xml", "--log-format", "xml", "list")
	r.fails(1, "should not be set to /", "--root", "/", "list")
	for _, id := range []string{"a/b", "..", ".", "ä", "a b", strings.Repeat("x", 300)} {
		r.fails(1, "invalid container ID format", "state", id)
		r.fails(1, "invalid container ID format", "delete", "--force", id)
	}
	r.fails(1, "container id cannot be empty", "state", "")
}

// TestFlagForms gives flags in every form and place.
func TestFlagForms(t *testing.T) {
	r := setup(t, "sleep", "1000")
	for _, args := range [][]string{
		{"run", "--detach", "--bundle", r.bundle, "f"}, {"run", "-d", "-b", r.bundle, "f"}, {"run", "-detach", "-bundle=" + r.bundle, "f"},
		{"run", "--detach=true", "--bundle=" + r.bundle, "f"}, {"run", "f", "-d", "--bundle", r.bundle}, {"run", "-d", "--", "f"},
	} {
		r.must(args...)
		r.must("delete", "f", "--force")
	}
	r.fails(1, "flag needs an argument: -bundle", "run", "f", "--bundle")
	r.fails(1, "invalid value", "run", "--preserve-fds", "x", "f")
}

func TestLogs(t *testing.T) {
	r := setup(t, "true")
	log := filepath.Join(r.bundle, "log")
	res := r.run("state", "x")
	if !regexp.MustCompile(`^time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)" level=error msg="container does not exist"\n$`).MatchString(res.err) {
		t.Errorf("%q", res.err)
	}
	res = r.run("--log-format", "json", "state", "x")
	var line map[string]string
	if err := json.Unmarshal([]byte(res.err), &line); err != nil || line["level"] != "error" || line["msg"] != "container does not exist" || line["time"] == "" {
		t.Errorf("%q", res.err)
	}
	res = r.run("--log", log, "--log-format=json", "--debug", "state", "x")
	data, err := os.ReadFile(log)
	if err != nil || res.err != "container does not exist\n" || !strings.HasPrefix(string(data), `{"level":"error","msg":"container does not exist","time":"`) {
		t.Errorf("%q, log %q, %v", res.err, data, err)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	r.edit(func(s *specs.Spec) { s.Process.Args = []string{"nosuch"} })
	r.run("--log", log, "create", "x")
	if data, err = os.ReadFile(log); err != nil || !strings.Contains(string(data), `level=error msg="create failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH"`) {
		t.Errorf("log %q, %v", data, err)
	}
	r.fails(1, "no such file or directory", "--log", "/no/such/log", "list")
}

func TestSpecAndFeatures(t *testing.T) {
	r := setup(t, "true")
	r.fails(1, "File config.json exists. Remove it first", "spec", "-b", r.bundle)
	dir := t.TempDir()
	r.must("spec", "--rootless", "-b", dir)
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if s.Linux.Resources != nil || len(s.Linux.UIDMappings) != 1 || strings.Contains(string(data), "gid=") || s.Process.Args[0] != "sh" || !s.Process.Terminal {
		t.Errorf("%s", data)
	}
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			t.Error("a rootless example has a network namespace")
		}
	}
	var f features.Features
	if err := json.Unmarshal([]byte(r.must("features")), &f); err != nil {
		t.Fatal(err)
	}
	if f.OCIVersionMin != "1.0.0" || f.OCIVersionMax != specs.Version || len(f.Hooks) != 6 || f.Linux == nil || len(f.Linux.Namespaces) < 6 || len(f.MountOptions) < 20 || f.Linux.Seccomp == nil {
		t.Errorf("%+v", f)
	}
}

// TestRoots checks where state goes.
func TestRoots(t *testing.T) {
	r := setup(t, "sleep", "1000")
	r.must("run", "-d", "x")
	defer r.must("delete", "-f", "x")
	if st, err := os.Stat(filepath.Join(r.root, "x")); err != nil || !st.IsDir() {
		t.Errorf("%v, %v", st, err)
	}
	if st, err := os.Stat(r.root); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
	for _, v := range []string{"true", "false", "auto"} {
		r.must("--rootless", v, "state", "x")
	}
	r.fails(1, "maybe", "--rootless", "maybe", "state", "x")
}
