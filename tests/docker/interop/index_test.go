package interop

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gantry/tests/harness"
)

const indexType = "application/vnd.oci.image.index.v1+json"

// TestIndex takes an index of two platforms in and out: docker says when it becomes the image of one, and with all platforms here other tools find the index as it was.
func TestIndex(t *testing.T) {
	w := newWorld(t, "docker", "skopeo")
	var list []any
	for _, arch := range []string{"amd64", "s390x"} {
		name := w.addr + "/part:" + arch
		w.LoadImage(name, harness.ImageConfig{Cmd: []string{"cat", "/from"}, Labels: map[string]string{"arch": arch}}, harness.Layer(harness.Entry{Name: "from", Body: says}))
		w.OK("push", name)
		w.tool("skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+name, "docker://"+w.addr+"/multi:"+arch)
		m := w.raw("multi", arch, "application/vnd.docker.distribution.manifest.v2+json")
		list = append(list, map[string]any{"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": digestOf(m), "size": len(m), "platform": map[string]string{"os": "linux", "architecture": arch}})
		w.OK("rmi", name)
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": list})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPut, "http://"+w.addr+"/v2/multi/manifests/1", strings.NewReader(string(index)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", indexType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatal(resp, err)
	}
	resp.Body.Close()

	ref, elsewhere := w.addr+"/multi:1", w.addr+"/elsewhere:1"
	w.OK("pull", ref)
	w.OK("tag", ref, elsewhere)
	r := w.Do("push", elsewhere)
	const note = "Not all multiplatform-content is present and only the available single-platform image was pushed"
	if all := r.Stdout + r.Stderr; r.Code != 0 || !strings.Contains(all, note) || !strings.Contains(all, digestOf(index)) {
		t.Errorf("docker does not say that one platform was pushed: %v", r)
	}
	cmd := exec.Command(harness.Bin("gantry"), "pull", "--all-platforms", ref)
	cmd.Env = []string{"DOCKER_HOST=" + w.D.Host(), "HOME=" + w.dir}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.OK("tag", ref, elsewhere)
	if r := w.Do("push", elsewhere); r.Code != 0 || strings.Contains(r.Stdout+r.Stderr, note) {
		t.Errorf("push of the index: %v", r)
	}
	if got := w.raw("elsewhere", "1", indexType); string(got) != string(index) {
		t.Errorf("pushed %s, want %s", got, index)
	}
	w.tool("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", "docker://"+elsewhere, "dir:"+w.file("all"))
	w.archives(ref, elsewhere, index)
}

// archives takes an index that is here with all its platforms through the archives and layouts of several tools.
func (w *world) archives(ref, elsewhere string, index []byte) {
	w.Helper()
	here := strings.Split(w.OK("images", "-q", "--no-trunc"), "\n")
	w.OK("save", "-o", w.file("ours.tar"), ref)
	w.OK("save", "-o", w.file("again.tar"), ref)
	w.tool("cmp", w.file("ours.tar"), w.file("again.tar"))
	w.OK("save", "--platform", "linux/s390x", "-o", w.file("s390x.tar"), ref)
	if r := w.Do("save", "--platform", "linux/riscv64", "-o", w.file("none.tar"), ref); r.Code == 0 || !strings.Contains(r.Stderr, "linux/s390x") {
		w.Errorf("save of a platform that is not here: %v", r)
	}
	w.tool("skopeo", "copy", "-q", "--all", "oci-archive:"+w.file("ours.tar"), "oci:"+w.file("layout")+":"+elsewhere)
	w.tool("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", "docker://"+elsewhere, "oci-archive:"+w.file("skopeo.tar")+":"+ref)
	w.tool("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", "docker://"+elsewhere, "oci:"+w.file("nameless")+":1")
	w.tool("skopeo", "copy", "-q", "docker-archive:"+w.file("ours.tar")+":"+ref, "dir:"+w.file("old"))
	if _, err := exec.LookPath("umoci"); err == nil {
		w.tool("umoci", "gc", "--layout", w.file("nameless"))
	}
	archives := []string{w.file("ours.tar"), w.file("skopeo.tar"), w.tarred(w.file("layout")), w.tarred(w.file("nameless"))}
	if _, err := exec.LookPath(filepath.Join(tools(), "crane")); err == nil {
		w.tool(filepath.Join(tools(), "crane"), "pull", "--insecure", "--format", "oci", elsewhere, w.file("crane"))
		archives = append(archives, w.tarred(w.file("crane")))
	}
	for n, archive := range archives {
		w.OK("rmi", "-f", ref)
		w.Do("rmi", "-f", elsewhere)
		for _, id := range here {
			w.Do("rmi", "-f", id)
		}
		out := w.OK("load", "-i", archive)
		_, name, _ := strings.Cut(out, ": ")
		name = strings.Fields(name)[0]
		w.OK("tag", name, fmt.Sprintf("%s/through:%d", w.addr, n))
		if r := w.Do("push", fmt.Sprintf("%s/through:%d", w.addr, n)); r.Code != 0 || strings.Contains(r.Stdout+r.Stderr, "Not all multiplatform-content") {
			w.Errorf("%s: push: %v", archive, r)
		}
		want := w.indexIn(archive) // skopeo makes OCI manifests of docker's in layouts
		if n == 0 && string(want) != string(index) {
			w.Errorf("saved %s, want %s", want, index)
		}
		if got := w.raw("through", strconv.Itoa(n), indexType); string(got) != string(want) {
			w.Errorf("%s: pushed %s, want %s", archive, got, want)
		}
		w.OK("tag", name, ref)
	}
	for _, id := range here {
		w.Do("rmi", "-f", id)
	}
	if r := w.Do("load", "--platform", "linux/riscv64", "-i", w.file("ours.tar")); r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, "linux/amd64, linux/s390x") {
		w.Errorf("load of a platform that is not there: %v", r)
	}
	w.OK("load", "--platform", "linux/s390x", "-i", w.file("ours.tar"))
	w.Is("s390x", "image", "inspect", "-f", `{{.Config.Labels.arch}}`, ref)
	w.OK("rmi", ref)
	w.OK("load", "-i", w.file("s390x.tar"))
	w.Is("s390x", "image", "inspect", "-f", `{{.Config.Labels.arch}}`, ref)
	w.OK("rmi", ref)
}

// indexIn returns the index that index.json of an archive leads to.
func (w *world) indexIn(path string) []byte {
	w.Helper()
	folder := w.untarred(path)
	var x struct{ Manifests []struct{ Digest string } }
	data, err := os.ReadFile(filepath.Join(folder, "index.json"))
	if err == nil {
		err = json.Unmarshal(data, &x)
	}
	if err != nil || len(x.Manifests) != 1 {
		w.Fatalf("%s: %s, %v", path, data, err)
	}
	if data, err = os.ReadFile(filepath.Join(folder, "blobs", "sha256", strings.TrimPrefix(x.Manifests[0].Digest, "sha256:"))); err != nil {
		w.Fatal(err)
	}
	return data
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// raw reads a manifest's bytes from the registry.
func (w *world) raw(repository, tag, accept string) []byte {
	w.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+w.addr+"/v2/"+repository+"/manifests/"+tag, nil)
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.Fatalf("manifest of %s: %s %v %s", repository, resp.Status, err, data)
	}
	return data
}
