package container

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"gantry/sandbox"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testRecord() *Record {
	r := &Record{ID: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Name: "box", Path: "/bin/sh", Args: []string{"-c", "true"}, Hostname: "0123456789ab",
		Config: &container.Config{Hostname: "0123456789ab", Env: []string{"PATH=/bin", "A=1"}, WorkingDir: "/srv"}, Host: &container.HostConfig{NetworkMode: network.NetworkBridge}}
	s := &Service{}
	s.hostDefaults(r.Host)
	return r
}

func inputs(r *Record) Inputs {
	caps, err := capabilities(r.Host.CapAdd, r.Host.CapDrop, false)
	if err != nil {
		panic(err)
	}
	return Inputs{Files: sandbox.FilesIn("/c"), Capabilities: caps, CgroupPath: "/gantry/" + r.ID, Joined: map[specs.LinuxNamespaceType]bool{}}
}

func TestSpec(t *testing.T) {
	limit, quota := int64(100), int64(64<<20)
	yes := true
	cases := map[string]func(*Record, *Inputs){
		"default": func(*Record, *Inputs) {},
		"limits": func(r *Record, _ *Inputs) {
			r.Host.Memory, r.Host.MemorySwap, r.Host.NanoCPUs, r.Host.CPUShares, r.Host.CpusetCpus, r.Host.PidsLimit = quota, -1, 5e8, 512, "0-1", &limit
			r.Host.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 64, Hard: -1}}
			r.Host.OomScoreAdj = 500
		},
		"mounts": func(r *Record, _ *Inputs) {
			bind, err := ParseBind("/data:/a/b:ro,rslave", "")
			if err != nil {
				t.Fatal(err)
			}
			tmpfs, err := parseTmpfs("/a", "size=1m,exec")
			if err != nil {
				t.Fatal(err)
			}
			shm := Mount{MountPoint: container.MountPoint{Type: mount.TypeBind, Source: "/x", Destination: "/dev/shm", RW: true}}
			hosts := Mount{MountPoint: container.MountPoint{Type: mount.TypeBind, Source: "/h", Destination: "/etc/hosts", RW: true}}
			r.Mounts = []Mount{bind, tmpfs, shm, hosts}
		},
		"privileged": func(r *Record, in *Inputs) {
			r.Host.Privileged = true
			r.Host.MaskedPaths, r.Host.ReadonlyPaths = nil, nil
		},
		"host": func(r *Record, _ *Inputs) {
			r.Host.NetworkMode, r.Host.PidMode, r.Host.IpcMode, r.Host.UTSMode = "host", "host", "host", "host"
		},
		"tty": func(r *Record, in *Inputs) {
			r.Config.Tty, r.Host.ReadonlyRootfs, r.Host.Init = true, true, &yes
			r.Config.User, in.User = "app", User{UID: 1000, GID: 1000, Groups: []uint32{1000, 27}}
			in.InitPath = "/usr/bin/gantry-shim"
			r.Host.Sysctls = map[string]string{"net.core.somaxconn": "99"}
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			r := testRecord()
			in := inputs(r)
			change(r, &in)
			got, err := json.MarshalIndent(spec(r, in), "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "spec-"+name+".json")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("the spec differs from %s; run with -update and read the difference\n%s", golden, got)
			}
		})
	}
}

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2", "C=3"}, []string{"B=9", "C", "D=4", "E"})
	want := []string{"A=1", "B=9", "D=4"}
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
