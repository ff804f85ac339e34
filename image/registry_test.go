package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/errdefs"
	"gantry/image"

	"github.com/opencontainers/go-digest"
)

// need skips the test when a program is not installed.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	return path
}

// startRegistry runs Debian's docker-registry on loopback until the test ends and returns its address.
func startRegistry(t *testing.T, extra string) string {
	t.Helper()
	program := need(t, "docker-registry")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n%s", dir, addr, extra)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 200 {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			return addr
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("docker-registry does not answer")
	return ""
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func sampleArchive(t *testing.T, tag string) ([]byte, digest.Digest) {
	t.Helper()
	return dockerArchive(t, tag, tarOf(t, text("bin/sh", strings.Repeat("shell", 10000)), text("etc/one", "1")), tarOf(t, text("etc/.wh.one", ""), text("etc/two", "2")))
}

func TestPushPull(t *testing.T) {
	addr := startRegistry(t, "")
	from, to := start(t), start(t)
	ctx := t.Context()
	ref := addr + "/team/app:1"
	archive, id := sampleArchive(t, ref)
	if _, err := from.Load(ctx, bytes.NewReader(archive), image.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	var lines []image.Progress
	listen := func(p image.Progress) { lines = append(lines, p) }
	if err := from.Push(ctx, ref, image.PushOptions{Progress: listen}); err != nil {
		t.Fatal(err)
	}
	aux, ok := lines[len(lines)-1].Aux.(image.PushResult)
	if !ok || aux.Tag != "1" {
		t.Fatalf("%+v", lines)
	}
	lines = nil
	i, err := to.Pull(ctx, ref, image.PullOptions{Progress: listen})
	if err != nil {
		t.Fatal(err)
	}
	if i.ID != id || len(i.RepoDigests) != 1 || i.RepoDigests[0] != addr+"/team/app@"+aux.Digest || i.RepoTags[0] != ref {
		t.Fatalf("%+v", i)
	}
	if last := lines[len(lines)-1].Status; last != "Status: Downloaded newer image for "+ref {
		t.Error(last)
	}
	lines = nil
	if _, err := to.Pull(ctx, ref, image.PullOptions{Progress: listen}); err != nil {
		t.Fatal(err)
	}
	if last := lines[len(lines)-1].Status; last != "Status: Image is up to date for "+ref {
		t.Error(last)
	}
	if err := to.snapshots.Prepare(ctx, "c", i.DiffIDs); err != nil {
		t.Fatal(err)
	}
	m, err := to.snapshots.Mount(ctx, "c", true)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, m, "etc/two"); err != nil || got != "2" {
		t.Error(got, err)
	}
	_ = m.Close()
	if err := to.snapshots.Remove(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	// What was pulled is sent on as it is: the same digest, nothing compressed again, blobs mounted.
	other := addr + "/team/copy:2"
	if err := to.Tag(ctx, ref, other); err != nil {
		t.Fatal(err)
	}
	lines = nil
	if err := to.Push(ctx, other, image.PushOptions{Progress: listen}); err != nil {
		t.Fatal(err)
	}
	if got := lines[len(lines)-1].Aux.(image.PushResult).Digest; got != aux.Digest {
		t.Errorf("pushed %s, was %s", got, aux.Digest)
	}
	mounted := 0
	for _, l := range lines {
		if l.Status == "Mounted from team/app" {
			mounted++
		}
	}
	if mounted != 2 {
		t.Errorf("%+v", lines)
	}
	if d, platforms, err := to.Distribution(ctx, other, image.PullOptions{}.Auth); err != nil || d.Digest.String() != aux.Digest || len(platforms) != 1 {
		t.Error(d, platforms, err)
	}
	if i, err := from.Pull(ctx, addr+"/team/app@"+aux.Digest, image.PullOptions{}); err != nil || i.ID != id {
		t.Error(i, err)
	}
	if _, err := to.Pull(ctx, addr+"/team/app", image.PullOptions{AllTags: true}); err != nil {
		t.Error(err)
	}
	for ref, want := range map[string]string{
		addr + "/team/app:none": "manifest for " + addr + "/team/app:none not found: manifest unknown: manifest unknown",
		addr + "/none/none:1":   "manifest for " + addr + "/none/none:1 not found: manifest unknown: manifest unknown",
		"127.0.0.1:1/x":         `Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`,
		addr + "/team/app@sha256:" + strings.Repeat("0", 64): "manifest for " + addr + "/team/app@sha256:" + strings.Repeat("0", 64) + " not found: manifest unknown: manifest unknown",
	} {
		if _, err := to.Pull(ctx, ref, image.PullOptions{}); err == nil || err.Error() != want {
			t.Errorf("pull %s: %v\nwant %s", ref, err, want)
		}
	}
	if err := to.Push(ctx, addr+"/absent", image.PushOptions{}); !errdefs.Is(err, errdefs.NotFound) || err.Error() != "An image does not exist locally with the tag: "+addr+"/absent" {
		t.Error(err)
	}
}

func TestSkopeo(t *testing.T) {
	skopeo := need(t, "skopeo")
	addr := startRegistry(t, "")
	s := start(t)
	ctx := t.Context()
	dir := t.TempDir()
	archive, id := sampleArchive(t, "base:1")
	docker := filepath.Join(dir, "docker.tar")
	if err := os.WriteFile(docker, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	ref := addr + "/lib/base:1"
	policy := "--insecure-policy"
	run(t, skopeo, policy, "copy", "--dest-tls-verify=false", "docker-archive:"+docker, "docker://"+ref)
	run(t, skopeo, policy, "copy", "docker-archive:"+docker, "oci-archive:"+filepath.Join(dir, "oci.tar")+":base:oci")
	i, err := s.Pull(ctx, ref, image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if i.ID != id {
		t.Errorf("pulled %s, want %s", i.ID, id)
	}
	var inspected struct{ Digest string }
	if err := json.Unmarshal([]byte(run(t, skopeo, "inspect", "--tls-verify=false", "docker://"+ref)), &inspected); err != nil {
		t.Fatal(err)
	}
	if i.Manifest.Digest.String() != inspected.Digest {
		t.Errorf("manifest %s, want %s", i.Manifest.Digest, inspected.Digest)
	}
	// A layout made by skopeo is loaded; ours is read by skopeo, with all digests kept.
	f, err := os.Open(filepath.Join(dir, "oci.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	loaded, err := s.Load(ctx, f, image.LoadOptions{})
	if err != nil || len(loaded) != 1 || loaded[0].Name != "base:oci" {
		t.Fatal(loaded, err)
	}
	for _, name := range []string{ref, "base:oci"} {
		var saved, again bytes.Buffer
		if err := s.Save(ctx, []string{name}, &saved, image.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(ctx, []string{name}, &again, image.SaveOptions{}); err != nil || !bytes.Equal(saved.Bytes(), again.Bytes()) {
			t.Error("two saves differ", err)
		}
		file := filepath.Join(dir, "saved.tar")
		if err := os.WriteFile(file, saved.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		image, err := s.Get(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := digest.FromString(run(t, skopeo, policy, "inspect", "--raw", "oci-archive:"+file)); got != image.Manifest.Digest {
			t.Errorf("%s: skopeo reads manifest %s, want %s", name, got, image.Manifest.Digest)
		}
		if got := digest.FromString(strings.TrimSuffix(run(t, skopeo, policy, "inspect", "--raw", "--config", "docker-archive:"+file), "\n")); got != image.ID {
			t.Errorf("%s: skopeo reads config %s, want %s", name, got, image.ID)
		}
		run(t, skopeo, policy, "copy", "docker-archive:"+file, "dir:"+filepath.Join(t.TempDir(), "d"))
		fresh := start(t)
		loaded, err := fresh.Load(ctx, &saved, imageLoad())
		if err != nil || len(loaded) != 1 || loaded[0].ID != image.ID {
			t.Fatal(loaded, err)
		}
		if copied, err := fresh.Get(ctx, name); err != nil || copied.Manifest.Digest != image.Manifest.Digest {
			t.Errorf("%s: manifest changed on its way: %v %v", name, copied, err)
		}
	}
}

func imageLoad() image.LoadOptions { return image.LoadOptions{} }
