package oci_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// background starts a daemon whose log goes to dir, and ends it with the test.
func background(t *testing.T, dir string, words ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
}

func TestUnderContainerd(t *testing.T) {
	needs(t, "containerd", "ctr", "containerd-shim-runc-v2")
	dir, err := os.MkdirTemp("", "gtc") // a short path: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, err := os.ReadFile(layer(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"c.toml": fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = %q\n",
			dir+"/root", dir+"/state", dir+"/s"),
		"layer.tar":     string(data),
		"config.json":   fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(data)),
		"manifest.json": `[{"Config":"config.json","RepoTags":["example.org/bb:1"],"Layers":["layer.tar"]}]`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("tar", "-C", dir, "-cf", dir+"/image.tar", "manifest.json", "config.json", "layer.tar").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	background(t, dir, "containerd", "-c", dir+"/c.toml")
	p := peer{t: t, flags: []string{"ctr", "-a", dir + "/s"}}
	eventually(t, "containerd", func() bool { return exec.Command("ctr", "-a", dir+"/s", "version").Run() == nil })
	p.want(0, "", "image", "import", "--snapshotter", "native", dir+"/image.tar")
	group := fmt.Sprintf("/gantry-oci-containerd-%d", os.Getpid())
	run := func(words ...string) []string {
		return append([]string{"run", "--snapshotter", "native", "--runc-binary", binary, "--cgroup", group}, words...)
	}
	const image = "example.org/bb:1"
	p.want(0, "hi", run("--rm", image, "x", "echo", "hi")...)
	p.want(7, "", run("--rm", image, "x", "sh", "-c", "exit 7")...)
	p.want(1, "executable file not found", run("--rm", image, "x", "nosuch")...)
	p.want(0, "", run("-d", "--memory-limit", "67108864", image, "y", "sleep", "1000")...)
	t.Cleanup(func() {
		left, _ := filepath.Glob("/sys/fs/cgroup/*" + group)
		if len(left) > 0 {
			t.Errorf("cgroups left: %v", left)
		}
	})
	p.want(0, "word", "task", "exec", "--exec-id", "e", "y", "echo", "word")
	p.want(5, "", "task", "exec", "--exec-id", "e", "y", "sh", "-c", "exit 5")
	p.want(0, "", "task", "pause", "y")
	p.want(0, "PAUSED", "task", "ls")
	p.want(0, "", "task", "resume", "y")
	p.want(0, "memory.", "task", "metrics", "y")
	p.want(0, "PID", "task", "ps", "y")
	p.want(0, "", "task", "kill", "-s", "KILL", "y")
	eventually(t, "the end of the task", func() bool {
		out, _ := exec.Command("ctr", "-a", dir+"/s", "task", "ls").Output()
		return strings.Contains(string(out), "STOPPED")
	})
	p.want(0, "exit code 137", "task", "rm", "y")
	p.want(0, "", "container", "rm", "y")
}
