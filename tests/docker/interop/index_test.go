package interop

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
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
	w.OK("rmi", elsewhere)
	w.OK("rmi", ref)
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
