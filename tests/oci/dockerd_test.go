package oci_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnderDockerd has Debian's dockerd run containers with this runtime, driven by the docker command line.
func TestUnderDockerd(t *testing.T) {
	needs(t, "dockerd", "containerd", "docker")
	dir, err := os.MkdirTemp("", "gtd") // a short path: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	image := layer(t)
	group := fmt.Sprintf("/gantry-oci-dockerd-%d", os.Getpid())
	t.Cleanup(func() {
		left, _ := filepath.Glob("/sys/fs/cgroup/*" + group)
		for _, path := range left {
			if err := os.Remove(path); err != nil {
				t.Errorf("left: %v", err)
			}
		}
	})
	background(t, dir, "dockerd", "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", "unix://"+dir+"/s", "--bridge", "none", "--iptables=false",
		"--ip6tables=false", "--storage-driver", "vfs", "--cgroup-parent", group, "--add-runtime", "gantry="+binary, "--default-runtime", "gantry")
	p := peer{t: t, flags: []string{"docker", "-H", "unix://" + dir + "/s"}, env: []string{"DOCKER_API_VERSION=1.41", "DOCKER_HOST="}}
	eventually(t, "dockerd", func() bool {
		cmd := exec.Command("docker", "-H", "unix://"+dir+"/s", "version")
		cmd.Env = append(os.Environ(), p.env...)
		return cmd.Run() == nil
	})
	p.want(0, "sha256:", "import", image, "bb")
	t.Cleanup(func() { p.want(0, "", "system", "prune", "-f") })
	run := func(words ...string) []string { return append([]string{"run", "--network", "none"}, words...) }
	p.want(0, "gantry", "info", "-f", "{{.DefaultRuntime}}")
	p.want(0, "hi", run("--rm", "bb", "echo", "hi")...)
	p.want(7, "", run("--rm", "bb", "sh", "-c", "exit 7")...)
	p.want(126, "is a directory", run("--rm", "bb", "/etc")...)
	p.want(127, "executable file not found in $PATH", run("--rm", "bb", "nosuch")...)
	p.want(0, "", run("-d", "--name", "aa", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "40", "bb", "sh", "-c", "echo logged; exec sleep 1000")...)
	p.want(0, "word", "exec", "aa", "echo", "word")
	p.want(5, "", "exec", "aa", "sh", "-c", "exit 5")
	p.want(126, "executable file not found", "exec", "aa", "nosuch") // this dockerd says 126 of every error of exec, with runc too
	p.want(0, "64MiB", "stats", "--no-stream", "aa")
	p.want(0, "", "pause", "aa")
	p.want(0, "true", "inspect", "-f", "{{.State.Paused}}", "aa")
	p.want(0, "", "unpause", "aa")
	p.want(0, "logged", "logs", "aa")
	p.want(0, "sleep 1000", "top", "aa")
	p.want(0, "", "update", "--memory", "96m", "--memory-swap", "-1", "aa")
	p.want(0, "96MiB", "stats", "--no-stream", "aa")
	p.want(0, "", "restart", "-t", "0", "aa")
	p.want(0, "", "kill", "aa")
	p.want(0, "137", "wait", "aa")
	p.want(0, "", "start", "aa")
	p.want(0, "aa", "rm", "-f", "aa")
	// Out of memory, which the kernel tells of by the cgroup that the runtime made.
	p.want(137, "", run("--name", "oo", "--memory", "16m", "--memory-swap", "16m", "bb", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1")...)
	p.want(0, "true", "inspect", "-f", "{{.State.OOMKilled}}", "oo")
	p.want(0, "oo", "rm", "-f", "oo")
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), dir+"/data/vfs") {
		t.Errorf("mounts are left: %v", err)
	}
}
