package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// writePidfile records our process ID in the file. A file that names another living daemon is an error; one that names a
// dead process, one of another program (the number was used again), ourselves, or nothing readable is stale and replaced.
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

// alive reports whether there is such a process and it is a daemon: of the same program as we are, or a dockerd. A zombie
// is none: it holds nothing any more.
func alive(pid int) bool {
	name, state, err := processOf(strconv.Itoa(pid))
	if err != nil || state == 'Z' {
		return false
	}
	own, _, err := processOf("self")
	return err != nil || name == own || name == "dockerd" || name == "gantryd"
}

// processOf returns a process's name and state from its stat file: "1 (name) S ...".
func processOf(pid string) (name string, state byte, err error) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", 0, err
	}
	open, shut := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')') // the name may hold parentheses itself
	if open < 0 || shut < open || len(stat) < shut+3 {
		return "", 0, fmt.Errorf("/proc/%s/stat: %q", pid, stat)
	}
	return string(stat[open+1 : shut]), stat[shut+2], nil
}
