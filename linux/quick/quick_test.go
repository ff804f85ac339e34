package quick

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestStart looks at what is left of the process that called Start: it must be there where the kernel can, and hurt nowhere.
func TestStart(t *testing.T) {
	t.Setenv("GOMAXPROCS", "1")
	Start()
	if v, ok := os.LookupEnv("GOMAXPROCS"); ok {
		t.Errorf("programs that this one executes are told GOMAXPROCS=%s", v)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < 2 {
		t.Fatal(threads, err)
	}
	late := 0
	for _, thread := range threads {
		slack, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
		switch {
		case os.IsNotExist(err): // it ended, or the kernel has no such file
			late++
		case err != nil:
			t.Error(err)
		case strings.TrimSpace(string(slack)) == "10000000":
			late++
		}
	}
	if os.Geteuid() == 0 && late == 0 {
		t.Error("the monitor is not calm")
	}
}

// TestEntry looks at a program that begins with entry.
func TestEntry(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("there is no entry for ", runtime.GOARCH)
	}
	program := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-ldflags", "-E gantry/linux/quick.entry", "-o", program, "./testdata/program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	run := exec.Command(program, "one", "two")
	run.Env = []string{"FIRST=1", "GOMAXPROCS=3"}
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	// Whether there is a huge page for it is the kernel's to say.
	if want := "1 false true [one two]\n"; string(out) != want {
		t.Errorf("%q instead of %q", out, want)
	}
	// An error of mmap is the runtime's to tell.
	if out, err := exec.Command("prlimit", "--as=20000000", program).CombinedOutput(); err == nil || !strings.Contains(string(out), "fatal error: failed to reserve") {
		t.Error(err, string(out))
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		Start()
	}
}
