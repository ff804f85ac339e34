package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// writePidfile records our process ID in the file. A file that names another living process is an error; one that names
// a dead process, ourselves, or nothing readable is stale and replaced.
func writePidfile(path string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read pidfile: %w", err)
	}
	if pid, err := strconv.Atoi(string(bytes.TrimSpace(old))); err == nil && pid > 0 && pid != os.Getpid() && alive(pid) {
		return fmt.Errorf("failed to start daemon, ensure docker is not running or delete %s: process with PID %d is still running", path, pid)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("failed to create pidfile directory: %w", err)
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return fmt.Errorf("write pidfile: %w", err)
	}
	return nil
}

// alive reports whether there is such a process. A zombie is none: it holds nothing any more.
func alive(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") ")) // the name before may hold anything but this
	return len(rest) == 0 || rest[0] != 'Z'
}
