package interop

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/tests/harness"
)

const (
	zstdType = "application/vnd.oci.image.layer.v1.tar+zstd"
	says     = "interop"
)

func TestSkopeo(t *testing.T) {
	w := newWorld(t, "skopeo")
	source := "docker://" + w.ref
	skopeo := func(args ...string) string {
		w.Helper()
		return w.tool("skopeo", append([]string{"copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"}, args...)...)
	}
	if got := w.tool("skopeo", "inspect", "--tls-verify=false", "-f", "{{.Digest}}", source); got != w.digest {
		t.Errorf("skopeo sees %s, the registry has %s", got, w.digest)
	}
	// What is saved here has the manifest that is here, in both of its forms.
	saved := w.file("saved.tar")
	w.OK("save", "-o", saved, w.ref)
	skopeo("docker-archive:"+saved, "dir:"+w.file("saved-docker"))
	var layout struct{ Manifests []struct{ Digest string } }
	if data, err := os.ReadFile(filepath.Join(w.untarred(saved), "index.json")); err != nil || json.Unmarshal(data, &layout) != nil {
		t.Fatal(err)
	}
	if got := w.tool("skopeo", "inspect", "-f", "{{.Digest}}", "oci-archive:"+saved); got != layout.Manifests[0].Digest {
		t.Errorf("skopeo read %s, the archive has %s", got, layout.Manifests[0].Digest)
	}

	skopeo(source, "docker-archive:"+w.file("docker.tar")+":skopeo:1")
	skopeo(source, "oci-archive:"+w.file("oci.tar")+":skopeo:1")
	skopeo(source, "oci:"+w.file("layout")+":skopeo:1")
	skopeo("--dest-compress-format", "zstd", source, "oci:"+w.file("layout-zstd")+":skopeo:1")
	w.loads(w.file("docker.tar"), w.id, says)
	// skopeo writes Docker's config anew for OCI.
	for path, transport := range map[string]string{w.file("oci.tar"): "oci-archive:" + w.file("oci.tar"), w.tarred(w.file("layout")): "oci:" + w.file("layout"), w.tarred(w.file("layout-zstd")): "oci:" + w.file("layout-zstd")} {
		w.loads(path, w.imageOf(transport), says)
	}
	skopeo("-f", "oci", source, "docker://"+w.addr+"/skopeo:oci")
	skopeo("-f", "oci", "--dest-compress-format", "zstd", source, "docker://"+w.addr+"/skopeo:zstd")
	skopeo("-f", "v2s2", source, "docker://"+w.addr+"/skopeo:v2s2")
	w.pulls("skopeo:oci", says)
	w.pulls("skopeo:zstd", says)
	w.pulls("skopeo:v2s2", says)
}

func TestPodman(t *testing.T) {
	w := newWorld(t, "podman", "skopeo")
	podman := func(args ...string) string {
		w.Helper()
		return w.tool("podman", append([]string{"--root", w.file("podman"), "--runroot", w.file("run"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}, args...)...)
	}
	podman("pull", "-q", "--tls-verify=false", w.ref)
	if got, want := podman("image", "inspect", "-f", "{{.Id}} {{.Digest}}", w.ref), strings.TrimPrefix(w.id, "sha256:")+" "+w.digest; got != want {
		t.Errorf("podman pulled %s, want %s", got, want)
	}
	podman("save", "-q", "--format", "docker-archive", "-o", w.file("docker.tar"), w.ref)
	w.loads(w.file("docker.tar"), w.id, says)
	podman("save", "-q", "--format", "oci-archive", "-o", w.file("oci.tar"), w.ref)
	w.loads(w.file("oci.tar"), w.imageOf("oci-archive:"+w.file("oci.tar")), says)
	podman("save", "-q", "--format", "oci-dir", "-o", w.file("layout"), w.ref)
	w.loads(w.tarred(w.file("layout")), w.imageOf("oci:"+w.file("layout")), says)
	for _, format := range []string{"gzip", "zstd", "zstd:chunked"} {
		name := "podman:" + strings.ReplaceAll(format, ":", "-")
		podman("push", "-q", "--tls-verify=false", "--format", "oci", "--compression-format", format, w.ref, "docker://"+w.addr+"/"+name)
		w.pulls(name, says)
		if err := os.RemoveAll(filepath.Join(containers, "cache")); err != nil { // or the next push would find the blobs of this
			t.Fatal(err)
		}
	}
	m := w.manifest("podman:zstd-chunked")
	if m.Layers[0].MediaType != zstdType || m.Layers[0].Annotations["io.containers.zstd-chunked.manifest-checksum"] == "" && m.Layers[0].Annotations["io.github.containers.zstd-chunked.manifest-checksum"] == "" {
		t.Errorf("podman made no zstd:chunked: %+v", m.Layers[0])
	}
	// Both ways: what is compressed here is read there.
	w.restore()
	podman("rmi", "-f", w.ref)
	for _, format := range []string{"gzip:9", "zstd:9"} {
		w.Env.OK("tag", w.ref, w.addr+"/ours:1")
		push(w, format, w.addr+"/ours:1")
		podman("pull", "-q", "--tls-verify=false", w.addr+"/ours:1")
		if got, want := podman("image", "inspect", "-f", "{{.Id}} {{.Digest}}", w.addr+"/ours:1"), strings.TrimPrefix(w.id, "sha256:")+" "+w.manifest("ours:1").digest; got != want {
			t.Errorf("%s: podman pulled %s, want %s", format, got, want)
		}
		podman("rmi", "-f", w.addr+"/ours:1")
		w.pulls("ours:1", says)
		w.restore()
	}
	saved := w.file("saved.tar")
	w.OK("save", "-o", saved, w.ref)
	podman("rmi", "-a", "-f")
	podman("load", "-q", "-i", saved)
	if got := podman("image", "inspect", "-f", "{{.Id}}", w.ref); got != strings.TrimPrefix(w.id, "sha256:") {
		t.Errorf("podman loaded %s, want %s", got, w.id)
	}
}

// push pushes with our own command line, which has the choice of a compression.
func push(w *world, compression, ref string) {
	w.Helper()
	cmd := exec.Command(harness.Bin("gantry"), "push", "--compression", compression, ref)
	cmd.Env = []string{"DOCKER_HOST=" + w.D.Host(), "HOME=" + w.dir}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Compressing as "+compression+" (was ") {
		w.Fatalf("push: %v\n%s", err, out)
	}
}

func TestBuildah(t *testing.T) {
	w := newWorld(t, "buildah", "skopeo")
	buildah := func(args ...string) string {
		w.Helper()
		return w.tool("buildah", append([]string{"--root", w.file("buildah"), "--runroot", w.file("run"), "--storage-driver", "vfs"}, args...)...)
	}
	c := buildah("from", "-q", "--tls-verify=false", w.ref)
	from := w.file("from")
	if err := os.WriteFile(from, []byte("buildah"), 0o644); err != nil {
		t.Fatal(err)
	}
	buildah("copy", "-q", c, from, "/from")
	buildah("config", "--label", "made=by buildah", c)
	for _, format := range []string{"oci", "docker"} {
		buildah("commit", "-q", "--tls-verify=false", "--format", format, c, "docker://"+w.addr+"/buildah:"+format)
		w.pulls("buildah:"+format, "buildah")
	}
	buildah("commit", "-q", "--format", "oci", c, "oci-archive:"+w.file("built.tar")+":buildah:1")
	w.loads(w.file("built.tar"), w.imageOf("oci-archive:"+w.file("built.tar")), "buildah")
}

func TestContainerd(t *testing.T) {
	w := newWorld(t, "containerd", "ctr")
	config := w.file("containerd.toml")
	// Without what this does not use, which would look for its own places.
	if err := os.WriteFile(config, []byte("version = 2\nroot = \""+w.file("root")+"\"\nstate = \""+w.file("state")+"\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n"+
		"[grpc]\naddress = \""+w.file("c.sock")+"\"\n[ttrpc]\naddress = \""+w.file("t.sock")+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(w.file("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("containerd", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	w.Eventually(20*time.Second, func() error {
		return exec.Command("ctr", "--address", w.file("c.sock"), "version").Run()
	})
	ctr := func(args ...string) string {
		w.Helper()
		return w.tool("ctr", append([]string{"--address", w.file("c.sock")}, args...)...)
	}
	ctr("image", "pull", "--plain-http", w.ref)
	if got := ctr("image", "ls", "name=="+w.ref); !strings.Contains(got, w.digest) {
		t.Errorf("containerd pulled %s, want %s", got, w.digest)
	}
	ctr("image", "export", w.file("exported.tar"), w.ref)
	w.loads(w.file("exported.tar"), w.id, says)
	ctr("image", "tag", w.ref, w.addr+"/ctr:1")
	ctr("image", "push", "--plain-http", w.addr+"/ctr:1")
	if got := w.manifest("ctr:1").digest; got != w.digest {
		t.Errorf("containerd pushed %s, want %s", got, w.digest)
	}
	w.pulls("ctr:1", says)
	w.restore()
	w.OK("tag", w.ref, w.addr+"/saved:1")
	w.OK("save", "-o", w.file("saved.tar"), w.addr+"/saved:1")
	ctr("image", "import", w.file("saved.tar"))
	if got := ctr("image", "ls", "name=="+w.addr+"/saved:1"); !strings.Contains(got, w.digest) {
		t.Errorf("containerd imported %s, want %s", got, w.digest)
	}
}

func TestDockerd(t *testing.T) {
	w := newWorld(t, "dockerd", "docker")
	d, err := harness.NewDockerd(harness.Dir(), "old", "--storage-driver", "vfs")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}()
	docker := func(args ...string) string {
		w.Helper()
		return w.tool("docker", append([]string{"-H", d.Host()}, args...)...)
	}
	docker("pull", w.ref)
	if got, want := docker("image", "inspect", "-f", "{{.Id}} {{.RepoDigests}}", w.ref), w.id+" ["+w.addr+"/team/app@"+w.digest+"]"; got != want {
		t.Errorf("dockerd pulled %s, want %s", got, want)
	}
	docker("save", "-o", w.file("docker.tar"), w.ref)
	w.loads(w.file("docker.tar"), w.id, says)
	docker("tag", w.ref, w.addr+"/dockerd:1")
	docker("push", w.addr+"/dockerd:1")
	w.pulls("dockerd:1", says)
	w.restore()
	w.OK("save", "-o", w.file("saved.tar"), w.ref)
	docker("rmi", "-f", w.id)
	docker("load", "-i", w.file("saved.tar"))
	if got := docker("image", "inspect", "-f", "{{.Id}}", w.ref); got != w.id {
		t.Errorf("dockerd loaded %s, want %s", got, w.id)
	}
}

func TestUmoci(t *testing.T) {
	w := newWorld(t, "umoci")
	saved := w.file("saved.tar")
	w.OK("save", "-o", saved, w.ref)
	layout := w.untarred(saved)
	umoci := func(args ...string) string {
		w.Helper()
		return w.tool("umoci", args...)
	}
	umoci("unpack", "--image", layout+":1", w.file("bundle"))
	if !w.found(w.file("bundle"), "from", says) {
		t.Error("umoci has not unpacked what was saved")
	}
	if err := os.WriteFile(w.file("bundle")+"/rootfs/from", []byte("umoci"), 0o644); err != nil {
		t.Fatal(err)
	}
	umoci("repack", "--image", layout+":2", w.file("bundle"))
	umoci("config", "--image", layout+":2", "--config.label", "made=by umoci")
	if err := os.Remove(filepath.Join(layout, "manifest.json")); err != nil { // which umoci does not know
		t.Fatal(err)
	}
	umoci("rm", "--image", layout+":1")
	w.loads(w.tarred(layout), "", "umoci")
}

func TestCrane(t *testing.T) {
	program := filepath.Join(tools(), "crane")
	if _, err := os.Stat(program); err != nil {
		t.Skip("crane is NOT TESTED: it could not be built")
	}
	w := newWorld(t)
	crane := func(args ...string) string {
		w.Helper()
		return w.tool(program, append([]string{"--insecure"}, args...)...)
	}
	if got := crane("digest", w.ref); got != w.digest {
		t.Errorf("crane sees %s, want %s", got, w.digest)
	}
	crane("validate", "--remote", w.ref)
	crane("pull", w.ref, w.file("docker.tar"))
	w.loads(w.file("docker.tar"), w.id, says)
	crane("pull", "--format", "oci", w.ref, w.file("layout"))
	w.loads(w.tarred(w.file("layout")), w.id, says)
	from := w.file("from.tar")
	if err := os.WriteFile(from, harness.Layer(harness.Entry{Name: "from", Body: "crane"}), 0o644); err != nil {
		t.Fatal(err)
	}
	crane("append", "-b", w.ref, "-f", from, "-t", w.addr+"/crane:1")
	w.pulls("crane:1", "crane")
	crane("copy", w.ref, w.addr+"/crane:2")
	w.pulls("crane:2", says)
	w.restore()
	w.OK("save", "-o", w.file("saved.tar"), w.ref)
	crane("push", w.file("saved.tar"), w.addr+"/crane:3")
	if got := w.manifest("crane:3"); got.Config.Digest != w.id {
		t.Errorf("crane pushed the image %s, want %s", got.Config.Digest, w.id)
	}
	w.pulls("crane:3", says)
	w.restore()
	push(w, "zstd:3", w.ref)
	crane("validate", "--fast", "--remote", w.ref) // it cannot read zstd
}
