// Package pid1 is the init of containers that are run with --init: it starts one program, passes signals on to it, buries orphans and
// ends with the program's exit code.
package pid1

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

// Run does that with the program and arguments in args, which may begin with "--", and returns the exit code: 128+n if the program was
// killed by signal n, 127 if it was not found, 126 if it could not be executed.
func Run(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: docker-init [--] PROGRAM [ARGUMENT...]")
		return 1
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // before the start, so that none gets lost
	// A background process group that writes to or reads from the terminal must not be stopped: that would be us.
	signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)
	pid, err := start(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "docker-init: exec %s failed: %v\n", args[0], err)
		if errors.Is(err, os.ErrNotExist) {
			return 127
		}
		return 126
	}
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			if code, ended := bury(pid); ended {
				return code
			}
		case syscall.SIGURG: // Go's own
		default:
			if number, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(pid, number) // it may just have ended: SIGCHLD is on its way
			}
		}
	}
	return 0
}

// start runs the program in a process group of its own, the terminal's foreground one if there is a terminal.
func start(args []string) (pid int, err error) {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if isTerminal(0) {
		attributes.Foreground, attributes.Ctty = true, 0
	}
	for _, path := range candidates(args[0]) {
		pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: attributes})
		if err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return pid, err
		}
	}
	return 0, syscall.ENOENT
}

// candidates returns where a program may be, by the rules of execvp.
func candidates(name string) []string {
	if strings.ContainsRune(name, '/') {
		return []string{name}
	}
	var paths []string
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		paths = append(paths, filepath.Join("/", dir, name))
	}
	return paths
}

// bury waits for all children that have ended.
func bury(program int) (code int, ended bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid == program {
			ended = true
			if code = status.ExitStatus(); status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}

func isTerminal(fd int) bool {
	var group int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group)))
	return errno == 0
}
