package oci_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var soak = flag.Int("soak", 100, "how many containers TestSoak runs, one after the other")

// traces is what containers may leave on a machine.
type traces struct {
	mounts    int
	cgroups   []string
	state     []string
	processes []string
}

func (r *runtime) traces() traces {
	r.t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.t.Fatal(err)
	}
	t := traces{mounts: strings.Count(string(data), "\n")}
	t.cgroups, _ = filepath.Glob("/sys/fs/cgroup/*" + r.group + "*") // only a malformed pattern fails
	_ = filepath.Walk(r.root, func(path string, _ os.FileInfo, err error) error {
		if err == nil && path != r.root {
			t.state = append(t.state, path)
		}
		return nil
	})
	all, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, path := range all {
		if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), r.group) {
			t.processes = append(t.processes, path)
		}
	}
	return t
}

// report shows how long runs took.
func report(t *testing.T, which string, took []time.Duration) {
	sorted := slices.Sorted(slices.Values(took))
	median, p99 := sorted[len(sorted)/2], sorted[len(sorted)*99/100]
	t.Logf("%d runs, %s: median %v, p99 %v, p99/median %.2f, longest %v", len(sorted), which, median, p99, float64(p99)/float64(median), sorted[len(sorted)-1])
}

// TestSoak runs containers one after the other and a hundred at once, and looks that nothing is left of them. -soak says how many
// ("make soak": ten thousand).
func TestSoak(t *testing.T) {
	r := setup(t, "true")
	before := r.traces()
	unclean := func(when string) {
		t.Helper()
		after := r.traces()
		if after.mounts != before.mounts || len(after.cgroups)+len(after.state)+len(after.processes) > 0 {
			t.Errorf("%s there were %d mounts, now %d; left are %q, %q and %q", when, before.mounts, after.mounts, after.cgroups, after.state, after.processes)
		}
	}
	took := make([]time.Duration, *soak)
	for i := range took {
		cmd := r.command("run", "s")
		start := time.Now()
		out, err := cmd.CombinedOutput()
		took[i] = time.Since(start)
		if err != nil {
			t.Fatalf("run %d: %v, %s", i, err, out)
		}
		if n := i + 1; n%1000 == 0 {
			report(t, fmt.Sprint("to the ", n, "th"), took[n-1000:n])
		}
	}
	unclean("before the runs one after the other")
	report(t, "all", took)

	const atOnce = 100
	text, err := os.ReadFile(filepath.Join(r.bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, atOnce)
	start := time.Now()
	for i := range errs {
		var s specs.Spec
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint("s", i)
		dir := filepath.Join(t.TempDir(), id)
		s.Root.Path, s.Linux.CgroupsPath = filepath.Join(r.bundle, "rootfs"), r.group+id
		data, err := json.Marshal(s)
		if err == nil {
			err = os.Mkdir(dir, 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if out, err := exec.Command(binary, "--root", r.root, "run", "--bundle", dir, id).CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("%s: %w, %s", id, err, out)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d at once: %v", atOnce, time.Since(start))
	unclean("before those at once")
}
