package interop

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/tests/harness"
)

// world is a registry with an image that was pushed from here, and a folder for files of the test.
type world struct {
	*harness.Env
	addr   string // of the registry
	dir    string
	ref    string // of the image, which prints "interop"
	id     string // of its config
	digest string // of its manifest in the registry
}

// containers is where the tools that share storage have what they keep for all users.
const containers = "/var/lib/containers"

// newWorld skips the test, loudly, when a program is missing.
func newWorld(t *testing.T, programs ...string) *world {
	t.Helper()
	if harness.Oracle() {
		t.Skip("what dockerd 20.10 reads and writes is not the question")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			fmt.Fprintf(os.Stderr, "interop: %s is NOT TESTED: %s is not installed (make tools)\n", t.Name(), p)
			t.Skipf("%s is not installed", p)
		}
	}
	// What podman, buildah and skopeo remember of blobs that they have seen is no part of a test.
	if err := errors.Join(os.MkdirAll(containers, 0o755), syscall.Mount("tmpfs", containers, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(containers, syscall.MNT_DETACH) })
	w := &world{Env: harness.New(t, daemon), addr: harness.Registry(t, ""), dir: t.TempDir()}
	w.ref = w.addr + "/team/app:1"
	if err := os.WriteFile(w.file("config.json"), []byte("{}"), 0o600); err != nil { // where DOCKER_CONFIG is
		t.Fatal(err)
	}
	w.LoadImage(w.ref, harness.ImageConfig{Cmd: []string{"cat", "/from"}}, harness.Layer(harness.Entry{Name: "from", Body: "interop"}, harness.Entry{Name: "set", Body: "x", Mode: 0o4755, UID: 1, GID: 2}))
	w.id = w.OK("image", "inspect", "-f", "{{.Id}}", w.ref)
	w.OK("push", w.ref)
	w.digest = w.manifest("team/app:1").digest
	w.Is("["+w.addr+"/team/app@"+w.digest+"]", "image", "inspect", "-f", "{{.RepoDigests}}", w.ref)
	return w
}

// file returns a path for a file of the test.
func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

// tool runs a tool, with nothing of the user's, and returns its output.
func (w *world) tool(name string, args ...string) string {
	w.Helper()
	var out, complaint bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":" + tools(), "HOME=" + w.dir, "TMPDIR=" + w.dir, "XDG_RUNTIME_DIR=" + w.dir, "DOCKER_CONFIG=" + w.dir}
	cmd.Stdout, cmd.Stderr = &out, &complaint
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		w.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), complaint.String())
	}
	return strings.TrimSpace(out.String())
}

// pushed is a manifest in the registry.
type pushed struct {
	digest string
	Config struct{ Digest string }
	Layers []struct {
		MediaType   string
		Digest      string
		Annotations map[string]string
	}
}

// manifest reads a manifest from the registry.
func (w *world) manifest(name string) (m pushed) {
	w.Helper()
	repository, tag, _ := strings.Cut(name, ":")
	req, err := http.NewRequest(http.MethodGet, "http://"+w.addr+"/v2/"+repository+"/manifests/"+tag, nil)
	if err != nil {
		w.Fatal(err)
	}
	for _, t := range []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"} {
		req.Header.Add("Accept", t)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(data, &m) != nil {
		w.Fatalf("manifest of %s: %s %v %s", name, resp.Status, err, data)
	}
	m.digest = fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	return m
}

// pulls pulls what a tool has pushed, runs it, and holds its ID and its digest against the registry's.
func (w *world) pulls(name, says string) {
	w.Helper()
	ref := w.addr + "/" + name
	m := w.manifest(name)
	w.Do("rmi", ref, w.ref) // if they are here: an image that is here keeps the manifest that it came with
	w.OK("pull", ref)
	w.Is(says, "run", "--rm", ref)
	w.Is(m.Config.Digest, "image", "inspect", "-f", "{{.Id}}", ref)
	if got := w.OK("image", "inspect", "-f", "{{.RepoDigests}}", ref); !strings.Contains(got, "@"+m.digest) {
		w.Errorf("%s has the digests %s, the registry %s", ref, got, m.digest)
	}
	w.Is("6755 1 2", "run", "--rm", ref, "sh", "-c", "chmod g+s /set; stat -c '%a %u %g' /set")
	// It goes on as it came.
	again := ref + "-again"
	w.OK("tag", ref, again)
	w.OK("push", again)
	if got := w.manifest(name + "-again"); got.digest != m.digest {
		w.Errorf("%s was pushed on as %s", m.digest, got.digest)
	}
	w.OK("rmi", again)
	w.OK("rmi", ref)
}

// loads loads an archive that a tool has written and runs what is in it. Without an ID it may be any.
func (w *world) loads(path, id, says string) {
	w.Helper()
	w.Do("rmi", w.ref)
	out := w.OK("load", "-i", path)
	at := strings.Index(out, "Loaded image")
	if at < 0 {
		w.Fatalf("load printed %s", out)
	}
	_, name, _ := strings.Cut(out[at:], ": ")
	name = strings.Fields(name)[0]
	w.Is(says, "run", "--rm", name)
	if got := w.OK("image", "inspect", "-f", "{{.Id}}", name); id != "" && got != id {
		w.Errorf("load of %s gives %s, want %s", path, got, id)
	}
	w.OK("rmi", name)
}

// imageOf is the ID of an image that skopeo finds at a place.
func (w *world) imageOf(place string) string {
	w.Helper()
	var m pushed
	if err := json.Unmarshal([]byte(w.tool("skopeo", "inspect", "--raw", place)), &m); err != nil {
		w.Fatal(err)
	}
	return m.Config.Digest
}

// restore has the first image here again.
func (w *world) restore() {
	w.Helper()
	w.OK("pull", w.ref)
}

// tarred makes a tar of a folder.
func (w *world) tarred(folder string) string {
	w.Helper()
	path := folder + ".tar"
	f, err := os.Create(path)
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	if err := tw.AddFS(os.DirFS(folder)); err != nil {
		w.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		w.Fatal(err)
	}
	return path
}

// untarred unpacks a tar of plain files into a new folder.
func (w *world) untarred(path string) string {
	w.Helper()
	folder := path + ".d"
	if err := os.Mkdir(folder, 0o755); err != nil && !os.IsExist(err) {
		w.Fatal(err)
	}
	w.tool("tar", "-C", folder, "-xf", path)
	return folder
}

// found reports whether a tree has a file of that content somewhere.
func (w *world) found(folder, name, content string) bool {
	w.Helper()
	ok := false
	_ = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == name {
			data, _ := os.ReadFile(path)
			ok = ok || string(data) == content
		}
		return nil
	})
	return ok
}
