package oci_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// peer runs a peer's command line with flags before the words.
type peer struct {
	t     *testing.T
	flags []string
	env   []string
}

// want runs words and compares the exit code, and looks for text in what was written.
func (p peer) want(code int, text string, words ...string) {
	p.t.Helper()
	cmd := exec.Command(p.flags[0], append(p.flags[1:len(p.flags):len(p.flags)], words...)...)
	cmd.Env = append(os.Environ(), p.env...)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), text) {
		p.t.Errorf("%v: exit code %d, want %d; %q, want %q", words, got, code, out, text)
	}
}

// needs skips a test whose peer is not installed.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// layer makes a tar of a root file system with busybox in it.
func layer(t *testing.T) string {
	t.Helper()
	r := setup(t, "true")
	path := filepath.Join(t.TempDir(), "layer.tar")
	if out, err := exec.Command("tar", "-C", filepath.Join(r.bundle, "rootfs"), "-cf", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	return path
}

// removeGroup removes the cgroups that podman and its monitor have made at and below a path. Where a hierarchy is not mounted they are
// plain folders with a file.
func removeGroup(t *testing.T, group string) {
	t.Helper()
	tops, err := filepath.Glob("/sys/fs/cgroup/*" + group)
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range tops {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		for _, dir := range slices.Backward(dirs) {
			err := os.Remove(dir)
			for until := time.Now().Add(20 * time.Second); errors.Is(err, syscall.EBUSY) && time.Now().Before(until); err = os.Remove(dir) {
				time.Sleep(20 * time.Millisecond) // the monitor ends after its container
			}
			if errors.Is(err, syscall.ENOTEMPTY) {
				err = errors.Join(os.Remove(filepath.Join(dir, "tasks")), os.Remove(dir))
			}
			if err != nil {
				t.Errorf("left: %v", err)
			}
		}
	}
}

func TestUnderPodman(t *testing.T) {
	needs(t, "podman", "conmon")
	dir := t.TempDir()
	p := peer{t: t, flags: []string{"podman", "--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp", "--storage-driver", "vfs",
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", binary}}
	p.want(0, "", "import", layer(t), "bb")
	group := fmt.Sprintf("/gantry-oci-podman-%d", os.Getpid())
	t.Cleanup(func() { removeGroup(t, group) })
	t.Cleanup(func() { p.want(0, "", "rm", "-f", "-t", "0", "-a") }) // before that
	run := func(words ...string) []string {
		return append([]string{"run", "--network", "none", "--cgroup-parent", group}, words...)
	}
	p.want(0, "hi", run("--rm", "bb", "echo", "hi")...)
	p.want(7, "", run("--rm", "bb", "sh", "-c", "exit 7")...)
	p.want(126, "is a directory", run("--rm", "bb", "/etc")...)
	p.want(127, "not found", run("--rm", "bb", "nosuch")...)
	p.want(0, "100000", run("--rm", "--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "bb", "cat", "/proc/self/uid_map")...)
	p.want(0, "", run("-d", "--name", "a", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "40", "bb", "sh", "-c", "echo logged; exec sleep 1000")...)
	p.want(0, "word", "exec", "a", "echo", "word")
	p.want(5, "", "exec", "a", "sh", "-c", "exit 5")
	p.want(0, "/dev/pts/", "exec", "-t", "a", "tty")
	p.want(127, "not found", "exec", "a", "nosuch")
	p.want(0, "67.11MB", "stats", "--no-stream", "a")
	p.want(0, "", "pause", "a")
	p.want(0, "paused", "inspect", "-f", "{{.State.Status}}", "a")
	p.want(0, "", "unpause", "a")
	p.want(0, "logged", "logs", "a")
	p.want(0, "", "restart", "-t", "0", "a")
	p.want(0, "", "kill", "a")
	p.want(0, "137", "wait", "a")
	p.want(0, "", "start", "a")
	p.want(0, "", "rm", "-f", "-t", "0", "a")
}
