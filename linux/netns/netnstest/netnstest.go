// Package netnstest runs the tests of a package in a network namespace of their own.
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

const marker = "GANTRY_TEST_NETNS"

// Main is for TestMain: it starts the test binary again in a fresh network namespace (with /sys as that namespace sees
// it left alone) and runs the tests there. Without the privilege it runs only what needs none.
func Main(m *testing.M) {
	if os.Getenv(marker) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "tests in a network namespace:", err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// Root skips a test that changes the kernel's objects where Main could not make a namespace for it.
func Root(t testing.TB) {
	t.Helper()
	if os.Getenv(marker) == "" {
		t.Skip("needs root, for a network namespace")
	}
}
