package shim_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"gantry/shim"
)

// pss returns the proportional set size of a process in kB.
func pss(t testing.TB, pid int) (total int, parts string) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var n int
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &n); err == nil {
			total = n
		}
		if strings.HasPrefix(line, "Pss_") {
			parts += strings.Join(strings.Fields(line), " ") + "; "
		}
	}
	return total, parts
}

func parent(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var n int
		if _, err := fmt.Sscanf(line, "PPid:\t%d", &n); err == nil {
			return n
		}
	}
	t.Fatal("no parent")
	return 0
}

// TestIdleMemory holds the memory of shims whose containers do nothing against its limit.
func TestIdleMemory(t *testing.T) {
	const containers, limit = 20, 1300 // kB each; a twentieth of the program text is in it, 160 kB
	b := newBench(t, 2)
	var tasks []*shim.Task
	for range containers {
		r := b.request("sleep", "1000")
		r.OpenStdin = true
		tasks = append(tasks, b.start(r))
	}
	time.Sleep(time.Second) // they settle
	sum := 0
	var parts string
	for _, task := range tasks {
		var n int
		n, parts = pss(t, parent(t, task.Pid()))
		sum += n
	}
	t.Logf("PSS of a shim: %d kB (%s)", sum/containers, parts)
	if sum/containers > limit {
		t.Errorf("a shim takes %d kB, more than %d", sum/containers, limit)
	}
}

// BenchmarkOutput measures 79-byte lines through the default log driver.
func BenchmarkOutput(b *testing.B) {
	bench := newBench(b, 1)
	const size = 100 << 20
	b.SetBytes(size)
	for b.Loop() {
		r := bench.request("sh", "-c", fmt.Sprintf("yes %s | head -c %d", strings.Repeat("y", 78), size))
		task := bench.start(r)
		bench.exitCode(task)
	}
}
