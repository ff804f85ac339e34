// Package harness runs a real daemon (gantryd, or dockerd as oracle) for black-box tests and drives it with a real command line.
//
// Each test binary runs in namespaces of its own (network, mounts, processes), so that a daemon under test cannot meet another daemon, another
// test or the host, every process, mount, link and firewall rule it leaves behind can be counted exactly, and all of them end with the test.
//
// Environment:
//
//	GANTRY_TEST_DAEMON  gantryd (default) or dockerd: the daemon under test; dockerd is the oracle that shows that a test asks for the right thing
//	GANTRY_TEST_CLI     the command line: docker (default; from PATH), gantry (from bin/), or a path
//	GANTRY_TEST_BIN     directory of the binaries; default: bin/ of this module, built when the test starts
//	GANTRY_TEST_KEEP    when set, data and logs of the daemon are kept, and their place printed
package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

const (
	stageVar = "GANTRY_TEST_STAGE"
	dirVar   = "GANTRY_TEST_DIR"
)

// Main is the TestMain of a black-box package: it enters fresh namespaces, starts a daemon with the given extra flags, runs the tests and stops it.
// It does not return.
func Main(m *testing.M, daemon **Daemon, flags ...string) {
	Inside(func() int { return test(m, daemon, flags) })
}

// Inside runs f in fresh namespaces and ends the process with what it returns; it builds bin/ first.
func Inside(f func() int) {
	switch os.Getenv(stageVar) {
	case "":
		os.Exit(outside())
	case "init":
		os.Exit(first())
	}
	os.Unsetenv(stageVar)
	os.Exit(f())
}

// IsInside reports whether this process is already in the namespaces that Inside makes, where there is no network but its own.
func IsInside() bool { return os.Getenv(dirVar) != "" }

// outside starts this program again as process 1 of new namespaces and waits for it.
func outside() int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "black-box tests need root")
		return 1
	}
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "gantry-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runtime.LockOSThread() // Pdeathsig is sent when the starting thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageVar+"=init", dirVar+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Run()
	sweepCgroups(dir)
	if os.Getenv("GANTRY_TEST_KEEP") != "" {
		fmt.Fprintln(os.Stderr, "kept", dir)
	} else if rmErr := os.RemoveAll(dir); rmErr != nil {
		fmt.Fprintln(os.Stderr, rmErr)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// first is process 1: it prepares the namespaces, starts the tests and reaps whatever is orphaned to it.
func first() int {
	fail := func(what string, err error) int {
		fmt.Fprintf(os.Stderr, "harness: %s: %v\n", what, err)
		return 1
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fail("make mounts private", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fail("mount /proc", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	// A link with a route and one neighbour stands for the world outside, so that "the host's address" exists.
	for _, line := range []string{
		"link set lo up",
		"link add up0 type veth peer name up1",
		"addr add 192.0.2.2/24 dev up0",
		"link set up0 up",
		"link set up1 up",
		"route add default via 192.0.2.1",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fail("ip "+line, fmt.Errorf("%w: %s", err, out))
		}
	}
	if err := os.Setenv(stageVar, "tests"); err != nil {
		return fail("set "+stageVar, err)
	}
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return fail("start the tests", err)
	}
	go func() {
		for s := range signals {
			_ = syscall.Kill(pid, s.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fail("wait", err)
		case got == pid && status.Exited():
			return status.ExitStatus()
		case got == pid && status.Signaled():
			return 128 + int(status.Signal())
		}
	}
}

func test(m *testing.M, daemon **Daemon, flags []string) int {
	d, err := NewDaemon(os.Getenv(dirVar), "d", flags...)
	if err == nil {
		err = d.Start()
	}
	if err == nil {
		err = d.Base()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	*daemon = d
	code := m.Run()
	if err := d.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "harness: stop daemon:", err)
		if code == 0 {
			code = 1
		}
	}
	return code
}

// Dir returns the directory of this test binary's daemons.
func Dir() string { return os.Getenv(dirVar) }

// Oracle reports whether the daemon under test is dockerd.
func Oracle() bool { return os.Getenv("GANTRY_TEST_DAEMON") == "dockerd" }

// Root returns the directory of go.mod.
func Root() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return "."
}

// Bin returns the path of one of our binaries.
func Bin(name string) string {
	if dir := os.Getenv("GANTRY_TEST_BIN"); dir != "" {
		return filepath.Join(dir, name)
	}
	return filepath.Join(Root(), "bin", name)
}

func probePath() string { return filepath.Join(Root(), "bin", ".probe") }

// build makes bin/ current, once at a time.
func build() error {
	root := Root()
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(root, "bin", ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	probe := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", probePath(), "./tests/probe")
	probe.Dir, probe.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := probe.CombinedOutput(); err != nil {
		return fmt.Errorf("build probe: %w\n%s", err, out)
	}
	if os.Getenv("GANTRY_TEST_BIN") != "" || (Oracle() && os.Getenv("GANTRY_TEST_CLI") != "gantry") {
		return nil
	}
	cmd := exec.Command("make", "-s", "build")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make build: %w\n%s", err, out)
	}
	return nil
}
