package initproc_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/clone"
	"gantry/linux/landlock"
	"gantry/oci/initproc"
)

var update = flag.Bool("update", false, "write the golden scripts anew")

func fd(name string) clone.FD { return clone.FD{Name: name, File: os.Stdin} }

func process() initproc.Process {
	return initproc.Process{
		Args: []string{"nginx", "-g"}, Env: []string{"PATH=/bin"}, Paths: []string{"/usr/bin/nginx", "/bin/nginx"}, Cwd: "/srv",
		User:  specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{5}},
		Stdio: [3]clone.FD{fd("stdin"), fd("stdout"), fd("stderr")}, Bounding: 0b1011, Effective: 0b11, Permitted: 0b11, Own: 0b1111, LastCap: 3,
		Seccomp: make([]byte, 24), CgroupFiles: []clone.FD{fd("memory"), fd("pids")}, NewKeyring: true, DieWithParent: true,
	}
}

// golden compares a script with testdata/name.
func golden(t *testing.T, name string, s *clone.Script) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	got := s.String()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it anew):\n%s", path, got)
	}
}

func TestInit(t *testing.T) {
	score := 100
	in := initproc.Init{
		Process: process(), NewCgroup: true, Loopback: true, Hostname: "web", Root: fd("root"), ReadOnly: true,
		Join: []initproc.Namespace{{Kind: 0x08000000, Name: "ipc", FD: fd("ipc namespace")}},
		Mounts: []initproc.Mount{
			{Destination: "/proc", FSType: "proc", Source: "proc", Attr: 14},
			{Destination: "/dev", FD: fd("mount /dev"), Late: true},
			{Destination: "/etc/hosts", FD: fd("mount /etc/hosts"), File: true},
		},
		Sysctl: [][2]string{{"net.ipv4.ip_forward", "1"}}, Null: fd("null"), Empty: fd("empty"),
		Masked: []initproc.Masked{{Path: "/proc/kcore"}, {Path: "/sys/firmware", Dir: true}}, ReadOnlyPaths: []string{"/proc/sys"},
	}
	in.OOMScoreAdj = &score
	in.Rlimits = []initproc.Rlimit{{Resource: 7, Name: "RLIMIT_NOFILE", Soft: 10, Hard: 20}}
	golden(t, "init", in.Script())
}

func TestTerminalInit(t *testing.T) {
	in := initproc.Init{Process: process(), Root: fd("root"), HooksBefore: true, HooksStart: true, Console: &initproc.Console{At: fd("mount /dev/pts"), Name: "0"}}
	in.Terminal, in.NoNewPrivs, in.Cwd = true, true, "/"
	in.Paths = []string{"/bin/sh"}
	l := fd("listener")
	in.Listener = &l
	golden(t, "terminal", in.Script())
}

func TestExec(t *testing.T) {
	in := initproc.Exec{Process: process(), Target: fd("init"), Join: 0x20000, JoinNames: "NEWMOUNT"}
	in.Cwd = "/"
	in.AppArmor = &initproc.Label{File: "attr/apparmor/exec", Value: "exec docker-default"}
	golden(t, "exec", in.Script())
}

// TestLabels has a kernel that runs with two security modules.
func TestLabels(t *testing.T) {
	listener := fd("listener")
	in := initproc.Init{Process: process(), Root: fd("root"), Listener: &listener}
	in.AppArmor = &initproc.Label{File: "attr/apparmor/exec", Value: "exec docker-default"}
	in.SELinux = &initproc.Label{File: "attr/exec", Value: "system_u:system_r:container_t:s0"}
	golden(t, "labels", in.Script())
}

// TestListener has a filter with a listener: whatever comes after it in the script the parent's agent may be asked about.
func TestListener(t *testing.T) {
	in := initproc.Exec{Process: process(), Target: fd("init"), Join: 0x20000, JoinNames: "NEWMOUNT"}
	in.Cwd, in.NoNewPrivs = "/", true
	in.SeccompFlags, in.AsksExec = 8, true
	golden(t, "listener", in.Script())
}

// TestOrder checks what the safety of a container rests on, whatever the golden scripts say.
func TestOrder(t *testing.T) {
	in := initproc.Init{Process: process(), Root: fd("root"), Mounts: []initproc.Mount{{Destination: "/proc", FSType: "proc"}}, Masked: []initproc.Masked{{Path: "/proc/kcore"}}, Null: fd("null"), Empty: fd("empty"), Sysctl: [][2]string{{"kernel.x", "1"}}, ReadOnlyPaths: []string{"/proc/sys"}}
	text := in.Script().String()
	at := func(s string) int {
		t.Helper()
		i := strings.Index(text, s)
		if i < 0 {
			t.Fatalf("%q is not in the script:\n%s", s, text)
		}
		return i
	}
	for _, pair := range [][2]string{
		{"SET_DUMPABLE", "write(<memory>"}, {"# mount /proc\n", "pivot_root"}, {"umount2", "set sysctl"}, {"umount2", "# mask"},
		{"set sysctl", "# make /proc/sys read-only"}, {"# mount /proc\n", "# mask"}, {"CAPBSET_DROP", "setresuid"}, {"setgroups", "setresuid"},
		{"setresgid", "setresuid"}, {"seccomp(", "# set capabilities"}, {"CLOEXEC)", "execve"}, {"SET_PDEATHSIG", "execve"},
	} {
		before, after := pair[0], pair[1]
		if at(before) >= at(after) {
			t.Errorf("%q comes after %q", before, after)
		}
	}
	// While the host's root directory is there, no path of the container's is walked from it.
	if before := text[:at("pivot_root")]; strings.Contains(before, "openat2(cwd") {
		t.Errorf("a path is walked from the host's root:\n%s", before)
	}
}

func TestLandlock(t *testing.T) {
	in := initproc.Exec{Process: process(), Target: fd("init"), Join: 0x20000, JoinNames: "NEWMOUNT"}
	in.NoNewPrivs, in.Cwd = true, "/"
	in.Landlock = &landlock.Restriction{FS: 15, Net: 1, Scoped: 2, Paths: []landlock.PathRule{{Path: "/usr", Access: 13, File: 5}, {Path: "/tmp", Access: 8}}, Ports: []landlock.PortRule{{Port: 80, Access: 1}}}
	golden(t, "landlock", in.Script())
}
