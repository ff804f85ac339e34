package rdt

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
)

// tree makes a folder of the form of resctrl. What the kernel makes in a new group, the test has to.
func tree(t *testing.T, groups ...string) *FS {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"schemata": "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n", "tasks": "", "mon_groups/.keep": "",
		"info/L3/cbm_mask": "fffff\n", "info/L3/min_cbm_bits": "1\n", "info/L3/num_closids": "16\n",
		"info/MB/bandwidth_gran": "10\n", "info/MB/delay_linear": "1\n", "info/MB/min_bandwidth": "10\n", "info/MB/num_closids": "8\n",
		"info/L3_MON/mon_features": "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n", "info/last_cmd_status": "ok\n",
	}
	for _, g := range groups {
		files[g+"/schemata"], files[g+"/tasks"], files[g+"/mon_groups/.keep"] = "L3:0=fffff;1=fffff\nMB:0=100;1=100\n", "", ""
		files[g+"/mon_data/mon_L3_00/llc_occupancy"], files[g+"/mon_data/mon_L3_01/llc_occupancy"] = "1024\n", "2048\n"
		files[g+"/mon_data/mon_L3_00/mbm_total_bytes"], files[g+"/mon_data/mon_L3_00/mbm_local_bytes"] = "7\n", "Unavailable\n"
	}
	for name, body := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return At(root)
}

func (f *FS) read(t *testing.T, name string) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(f.root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestGroup(t *testing.T) {
	f := tree(t, "gold")
	g, err := f.Create("c1", &specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f;1=f0", MemBwSchema: "MB:0=20;1=70", Schemata: []string{"L2:0=3"}, EnableMonitoring: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.read(t, "gold/schemata"), "L3:0=f;1=f0\nMB:0=20;1=70\nL2:0=3\n"; !strings.HasPrefix(got, want) {
		t.Errorf("schemata %q, want %q", got, want)
	}
	if err := os.WriteFile(filepath.Join(f.root, "gold/mon_groups/c1/tasks"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(1234); err != nil {
		t.Error(err)
	}
	for _, file := range []string{"gold/tasks", "gold/mon_groups/c1/tasks"} {
		if got := f.read(t, file); got != "1234" {
			t.Errorf("%s: %q", file, got)
		}
	}
	state, err := json.Marshal(g.State)
	if err != nil {
		t.Fatal(err)
	}
	var s State
	if err := json.Unmarshal(state, &s); err != nil {
		t.Fatal(err)
	}
	g = f.Open(s)
	if err := g.Update(&specs.LinuxIntelRdt{MemBwSchema: "MB:0=50;1=50"}); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(f.root, "gold/mon_groups/c1/tasks")); err != nil { // rmdir of the kernel's takes the files along
		t.Fatal(err)
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
	if !f.exists("gold") || f.exists("gold/mon_groups/c1") {
		t.Error("a group with a name stays, and the container's own measurement goes")
	}
}

func TestOwnGroup(t *testing.T) {
	f := tree(t, "c1")
	g, err := f.Create("c1", &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"})
	if err != nil || g.Made {
		t.Fatalf("a group that is there: %+v, %v", g, err)
	}
	if err := g.Delete(); err != nil || !f.exists("c1") {
		t.Errorf("a group that was there before: %v", err)
	}
	g, err = f.Create("c2", &specs.LinuxIntelRdt{})
	if err != nil || !g.Made {
		t.Fatalf("%+v, %v", g, err)
	}
	if err := g.Delete(); err != nil || f.exists("c2") {
		t.Errorf("delete: %v", err)
	}
	if err := g.Delete(); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func TestStats(t *testing.T) {
	f := tree(t, "gold")
	g := f.Open(State{Closid: "gold", Named: true})
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"l3_cache_info":{"cbm_mask":"fffff","min_cbm_bits":1,"num_closids":16},"l3_cache_schema_root":"L3:0=fffff;1=fffff","l3_cache_schema":"L3:0=fffff;1=fffff",` +
		`"mem_bw_info":{"bandwidth_gran":10,"delay_linear":1,"min_bandwidth":10,"num_closids":8},"mem_bw_schema_root":"MB:0=100;1=100","mem_bw_schema":"MB:0=100;1=100",` +
		`"schemata":["L3:0=fffff;1=fffff","MB:0=100;1=100"],"mbm_stats":[{"mbm_total_bytes":7},{}],"cmt_stats":[{"llc_occupancy":1024},{"llc_occupancy":2048}]}`
	if string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	f := tree(t)
	if err := os.RemoveAll(filepath.Join(f.root, "info/MB")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(f.root, "mon_groups")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.root, "info/last_cmd_status"), []byte("unknown domain 7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for text, c := range map[string]struct {
		r    specs.LinuxIntelRdt
		kind errdefs.Kind
	}{
		"linux.intelRdt.closID: \"../x\"":               {specs.LinuxIntelRdt{ClosID: "../x"}, errdefs.InvalidParameter},
		"linux.intelRdt.closID: \"info\"":               {specs.LinuxIntelRdt{ClosID: "info"}, errdefs.InvalidParameter},
		"linux.intelRdt.closID: group gone must be":     {specs.LinuxIntelRdt{ClosID: "gone"}, errdefs.NotFound},
		"linux.intelRdt.l3CacheSchema":                  {specs.LinuxIntelRdt{L3CacheSchema: "MB:0=1"}, errdefs.InvalidParameter},
		"linux.intelRdt.memBwSchema: this machine":      {specs.LinuxIntelRdt{MemBwSchema: "MB:0=1"}, errdefs.NotImplemented},
		"linux.intelRdt.schemata[1]":                    {specs.LinuxIntelRdt{Schemata: []string{"L2:0=1", "x"}}, errdefs.InvalidParameter},
		"linux.intelRdt.enableMonitoring: this machine": {specs.LinuxIntelRdt{EnableMonitoring: true}, errdefs.NotImplemented},
		"(unknown domain 7)":                            {specs.LinuxIntelRdt{L3CacheSchema: "L3:7=1"}, errdefs.Internal}, // there is no file schemata
	} {
		if g, err := f.Create("c", &c.r); !errdefs.Is(err, c.kind) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %+v, %v", text, g, err)
		}
		if f.exists("c") || f.exists("gone") {
			t.Fatalf("%q: a group is left", text)
		}
	}
	if g, err := f.Create("..", &specs.LinuxIntelRdt{}); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Errorf("an ID that is no name: %+v, %v", g, err)
	}
}

func TestFind(t *testing.T) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Find()
	if strings.Contains(string(table), " - resctrl ") {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if f != nil || !errdefs.Is(err, errdefs.NotImplemented) || !strings.Contains(err.Error(), "linux.intelRdt: Intel RDT is not available") {
		t.Errorf("%v, %v", f, err)
	}
}
