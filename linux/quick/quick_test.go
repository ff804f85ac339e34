package quick

import (
	"os"
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
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	if mode, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err == nil && !strings.Contains(string(mode), "[never]") && !strings.Contains(string(smaps), " hg ") {
		t.Error("no memory may have huge pages")
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		Start()
	}
}
