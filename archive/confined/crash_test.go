//go:build !cgo

package confined_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/archive"
	"gantry/archive/confined"
	"gantry/errdefs"
)

// unpackers returns the children of a process that unpack.
func unpackers(t *testing.T, parent int) []int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, path := range all {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // gone
		}
		var pid, ppid int
		var state string
		end := bytes.LastIndexByte(data, ')')
		if _, err := fmt.Sscanf(string(data[end+1:]), " %s %d", &state, &ppid); err != nil || ppid != parent {
			continue
		}
		if line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline")); err != nil || !bytes.HasPrefix(line, []byte("gantry-unpack\x00")) {
			continue
		}
		if _, err := fmt.Sscan(string(data), &pid); err != nil {
			t.Fatal(err)
		}
		found = append(found, pid)
	}
	return found
}

// await waits until a child unpacks.
func await(t *testing.T, parent int) int {
	t.Helper()
	for range 1000 {
		if found := unpackers(t, parent); len(found) > 0 {
			return found[0]
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("no child unpacks")
	return 0
}

// stalled is a layer that begins and then says nothing until it is closed.
func stalled() (io.Reader, *io.PipeWriter) {
	r, w := io.Pipe()
	go func() { _ = file(tar.NewWriter(w), "f", strings.Repeat("x", 1000)) }()
	return r, w
}

// A child that is killed is an error that says so; a context that ends ends the child.
func TestKilled(t *testing.T) {
	r, w := stalled()
	go func() {
		_ = syscall.Kill(await(t, os.Getpid()), syscall.SIGKILL)
		_ = w.CloseWithError(io.EOF)
	}()
	if _, _, err := unpack(t, r, archive.Limits{}); err == nil || !strings.Contains(err.Error(), "ended early (killed)") {
		t.Error(err)
	}
	r, w = stalled()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		await(t, os.Getpid())
		cancel()
		_ = w.CloseWithError(errors.New("canceled, too"))
	}()
	lock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := confined.Unpack(ctx, r, confined.Job{Folder: t.TempDir(), Lock: lock}); !errdefs.Is(err, errdefs.Canceled) {
		t.Error(err)
	}
	if left := unpackers(t, os.Getpid()); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// A child whose parent is killed ends, and holds its lock until then.
func TestOrphan(t *testing.T) {
	if folder := os.Getenv("GANTRY_TEST_ORPHAN"); folder != "" {
		lock, err := os.Create(filepath.Join(folder, "lock"))
		if err == nil {
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, func() { os.Exit(2) }) // nobody is to wait for ever, nor the runtime to see a deadlock
		r, _ := stalled()
		_, err = confined.Unpack(t.Context(), r, confined.Job{Folder: folder, Lock: lock})
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	folder := t.TempDir()
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOrphan$")
	parent.Env = append(os.Environ(), "GANTRY_TEST_ORPHAN="+folder)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	child := await(t, parent.Process.Pid)
	lock, err := os.Open(filepath.Join(folder, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("the lock is free: %v", err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	locked := make(chan error)
	go func() { locked <- syscall.Flock(int(lock.Fd()), syscall.LOCK_EX) }()
	select {
	case err := <-locked:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the child goes on without its parent")
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
}
