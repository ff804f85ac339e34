package oci_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckpoint saves and restores with the real criu, as far as it can on this kernel; where it cannot, the error has to say why, and
// the container has to run on.
func TestCheckpoint(t *testing.T) {
	r := setup(t, "sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done")
	cmd := r.command("run", "-d", "c")
	if res := r.finish(cmd); res.code != 0 {
		t.Fatalf("%+v", res)
	}
	t.Cleanup(func() { r.run("delete", "-f", "c") })
	images := filepath.Join(t.TempDir(), "images")
	// Without criu.
	cmd = r.command("checkpoint", "--image-path", images, "c")
	cmd.Env = []string{"PATH=/no/such"}
	if res := r.finish(cmd); res.code != 1 || !strings.Contains(res.err, "need the program criu") {
		t.Errorf("%+v", res)
	}
	r.fails(1, "invalid manage-cgroups-mode value: x", "checkpoint", "--image-path", images, "--manage-cgroups-mode", "x", "c")
	r.fails(1, "--parent-path must be relative", "checkpoint", "--image-path", images, "--parent-path", "/x", "c")
	r.fails(1, "Use --page-server ADDRESS:PORT", "checkpoint", "--image-path", images, "--page-server", "x", "c")
	r.fails(1, "Invalid port number", "checkpoint", "--image-path", images, "--page-server", "x:y", "c")
	r.fails(1, `namespace \"pid\" is not supported`, "checkpoint", "--image-path", images, "--empty-ns", "pid", "c")
	if _, err := exec.LookPath("criu"); err != nil {
		return
	}
	res := r.run("checkpoint", "--image-path", images, "--leave-running", "c")
	if res.code != 0 {
		t.Logf("criu cannot on this kernel: %s", res.err)
		if !strings.Contains(strings.ToLower(res.err), "criu") || strings.Contains(res.err, "goroutine") {
			t.Errorf("%+v", res)
		}
		if s := r.state("c"); s.Status != "running" {
			t.Errorf("after a failed checkpoint: %+v", s)
		}
		r.must("delete", "-f", "c") // its cgroup is to be the restored one's
		if res := r.run("restore", "--image-path", images, "c"); res.code != 1 || !strings.Contains(strings.ToLower(res.err), "criu") {
			t.Errorf("restore: %+v", res)
		}
		return
	}
	r.must("checkpoint", "--image-path", images, "c")
	if res := r.run("state", "c"); res.code == 0 {
		t.Errorf("the saved container is still there: %+v", res)
	}
	r.must("restore", "-d", "--image-path", images, "c")
	if s := r.state("c"); s.Status != "running" {
		t.Errorf("restored: %+v", s)
	}
}
