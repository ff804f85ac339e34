package shim_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/shim"
)

// shims returns the processes that the test's launchers started.
func shims(t *testing.T) []int {
	t.Helper()
	var pids []int
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that ended
		}
		for _, field := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.HasPrefix(name, []byte("gantry-shim\x00")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// processes returns the processes of the containers that have the mark.
func (b *bench) processes() []string {
	b.Helper()
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if exe, err := os.Readlink(dir + "/exe"); err == nil && exe == "/bin/busybox" {
			if line, err := os.ReadFile(dir + "/cmdline"); err == nil && bytes.Contains(line, []byte(b.mark())) {
				found = append(found, dir)
			}
		}
	}
	return found
}

// mark is an argument that only this test's containers have.
func (b *bench) mark() string { return "987654" + strconv.Itoa(os.Getpid()) }

// TestShimKilledAnytime kills shims at random moments of a container's life: Start, Events and Reap come to an end, nothing is left.
func TestShimKilledAnytime(t *testing.T) {
	b := newBench(t, 1)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	started := 0
	for range rounds {
		r := b.request("sleep", b.mark())
		go func() {
			time.Sleep(time.Duration(rand.IntN(8000)) * time.Microsecond)
			for _, pid := range shims(t) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		task, err := b.launcher.Start(ctx, r)
		if err == nil {
			started++
			time.Sleep(10 * time.Millisecond)
			for _, pid := range shims(t) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			b.event(task, shim.EventClosed)
			for range task.Events() {
			}
		} else if !errdefs.Is(err, errdefs.Unavailable) {
			t.Error(err)
		}
		if err := shim.Reap(ctx, r.Dir); err != nil {
			t.Error(err)
		}
		cancel()
		if _, err := shim.ReadExit(r.Dir); !errdefs.Is(err, errdefs.NotFound) {
			t.Error(err)
		}
		if dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent() + "/" + r.ID); len(dirs) != 0 {
			t.Fatal("left:", dirs)
		}
	}
	t.Logf("%d of %d starts succeeded", started, rounds)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := b.processes()
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("left:", left)
		}
	}
}

// Shims that are killed while they wait for a container fail no start.
func TestWaitingShimsKilled(t *testing.T) {
	b := newBench(t, 3)
	task, err := b.launcher.Start(context.Background(), b.request("true")) // fills up
	if err != nil {
		t.Fatal(err)
	}
	b.exitCode(task)
	if err := task.Delete(context.Background()); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(5 * time.Second); len(shims(t)) < 3 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	for _, pid := range shims(t) {
		process, err := fd.Pidfd(pid)
		if errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err == nil {
			err = errors.Join(fd.Signal(process, syscall.SIGKILL), fd.WaitGone(process), process.Close()) // one that still dies takes a request
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	task, err = b.launcher.Start(context.Background(), b.request("true"))
	if err != nil {
		t.Fatal(err)
	}
	if code := b.exitCode(task); code != 0 {
		t.Error(code)
	}
	if err := task.Delete(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestMany starts and ends containers and sessions and counts what the daemon's side keeps.
func TestMany(t *testing.T) {
	b := newBench(t, 2)
	count := func() (files int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	run := func(n int) {
		for range n {
			r := b.request("true")
			task, err := b.launcher.Start(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			if code := b.exitCode(task); code != 0 {
				t.Error(code)
			}
			if err := task.Delete(context.Background()); err != nil {
				t.Error(err)
			}
			for range task.Events() {
			}
		}
	}
	run(3)
	time.Sleep(200 * time.Millisecond)
	before := count()
	run(40)
	time.Sleep(200 * time.Millisecond)
	if after := count(); after > before+2 {
		t.Errorf("%d open files, %d before", after, before)
	}
	if n := len(shims(t)); n > 3 {
		t.Errorf("%d shims", n)
	}
	for _, pid := range shims(t) {
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil && bytes.Contains(status, []byte("State:\tZ")) {
			t.Error("a shim was not waited for")
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}
