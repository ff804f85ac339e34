package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gantry/tests/harness"
)

func TestListTagRemove(t *testing.T) {
	e := harness.New(t, daemon)
	id := e.OK("image", "inspect", "-f", "{{.Id}}", image)
	e.OK("tag", image, "other:2")
	e.OK("tag", image, "localhost:5000/deep/name:3")
	e.OK("tag", id, "byid")
	names := strings.Fields(e.OK("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "dangling=false"))
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "busybox:test byid:latest localhost:5000/deep/name:3 other:2" {
		t.Errorf("images printed %s", got)
	}
	e.Is(id[7:19], "images", "-q", "other")
	e.Is(id, "images", "-q", "--no-trunc", "other:2")
	e.Match("^REPOSITORY   TAG       IMAGE ID       CREATED +SIZE\nother", "images", "other")
	e.Is("other", "images", "--format", "{{.Repository}}", "--filter", "reference=oth*")
	e.Is("", "images", "-q", "nosuch")
	e.Is("4", "image", "inspect", "-f", "{{len .RepoTags}}", id[7:15])

	r := e.Do("rmi", "other:2")
	if r.Code != 0 || r.Stdout != "Untagged: other:2\n" {
		t.Error(r)
	}
	e.Fails(1, "No such image: other:2", "rmi", "other:2")
	e.Fails(1, "No such image: other:2", "tag", "other:2", "x")
	e.Fails(1, "No such image: other:2", "image", "inspect", "other:2")
	e.Fails(1, "No such image: other:2", "history", "other:2")
	e.Fails(1, "No such image: other:2|reference does not exist", "save", "-o", filepath.Join(e.Config, "x"), "other:2")
	e.Fails(1, "invalid reference format", "tag", image, "UPPER")
	e.Fails(1, `unable to delete `+id[7:19]+` \(must be forced\) - image is referenced in multiple repositories`, "rmi", id)
}

func TestRemoveInUse(t *testing.T) {
	e := harness.New(t, daemon)
	e.LoadImage("used:1", harness.ImageConfig{Labels: map[string]string{"x": "used"}})
	id := e.OK("create", "used:1")
	e.Fails(1, `conflict: unable to remove repository reference "used:1" \(must force\) - container `+id[:12]+` is using its referenced image [0-9a-f]{12}`, "rmi", "used:1")
	img := e.OK("image", "inspect", "-f", "{{.Id}}", "used:1")
	e.Match("^Untagged: used:1", "rmi", "-f", "used:1")
	// The container still starts.
	e.OK("start", id)
	e.OK("wait", id)
	e.OK("rm", id)
	e.Do("rmi", img) // where the record stayed for the container's sake
	e.Fails(1, "No such image", "image", "inspect", img)
	// A running container's image stays even with force.
	e.LoadImage("used:2", harness.ImageConfig{})
	id = e.Sleeper()
	e.Fails(1, "cannot be forced|image is being used by running container "+id[:12], "rmi", "-f", e.OK("image", "inspect", "-f", "{{.Id}}", image))
}

func TestInspectHistory(t *testing.T) {
	e := harness.New(t, daemon)
	e.LoadImage("look:1", harness.ImageConfig{
		User: "app", Env: []string{"PATH=/bin", "A=1"}, Cmd: []string{"a", "b"}, Entrypoint: []string{"e"}, WorkingDir: "/w", Labels: map[string]string{"l": "v"},
		Volumes: map[string]struct{}{"/vol": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "SIGINT",
	}, harness.Layer(harness.Entry{Name: "more", Body: "x"}))
	e.Is(`app [PATH=/bin A=1] [a b] [e] /w map[l:v] {"/vol":{}} {"80/tcp":{}} SIGINT amd64 linux 2 layers`, "image", "inspect", "-f",
		`{{.Config.User}} {{.Config.Env}} {{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.WorkingDir}} {{.Config.Labels}} {{json .Config.Volumes}} {{json .Config.ExposedPorts}} {{.Config.StopSignal}} {{.Architecture}} {{.Os}} {{len .RootFS.Layers}} {{.RootFS.Type}}`, "look:1")
	e.Is("layer 2\nlayer 1", "history", "--format", "{{.CreatedBy}}", "look:1")
	e.Match("^IMAGE          CREATED.* CREATED BY   SIZE      COMMENT\n", "history", "look:1")
	e.Is("2024-01-02T03:04:05Z", "image", "inspect", "-f", "{{.Created}}", "look:1")
	e.Match("^sha256:", "inspect", "-f", "{{.Id}}", "look:1")
}

func TestSaveLoad(t *testing.T) {
	e := harness.New(t, daemon)
	e.LoadImage("a:1", harness.ImageConfig{Labels: map[string]string{"n": "a"}}, harness.Layer(harness.Entry{Name: "a", Body: "a"}))
	e.LoadImage("b:1", harness.ImageConfig{Labels: map[string]string{"n": "b"}}, harness.Layer(harness.Entry{Name: "b", Body: "b"}))
	ids := e.OK("image", "inspect", "-f", "{{.Id}}", "a:1", "b:1")
	path := filepath.Join(e.Config, "ab.tar")
	e.OK("save", "-o", path, "a:1", "b:1")
	e.OK("rmi", "a:1", "b:1")
	out := e.OK("load", "-i", path)
	if !strings.Contains(out, "Loaded image: a:1") || !strings.Contains(out, "Loaded image: b:1") {
		t.Errorf("load printed %q", out)
	}
	e.Is(ids, "image", "inspect", "-f", "{{.Id}}", "a:1", "b:1")
	if got := e.OK("run", "--rm", "b:1", "cat", "/b"); got != "b" {
		t.Errorf("got %q", got)
	}
	// Compressed, on stdin.
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"gzip", "bzip2", "xz", "zstd"} {
		if program == "zstd" && harness.Oracle() {
			continue // dockerd of Debian 12 knows no zstd
		}
		e.OK("rmi", "a:1", "b:1")
		if r := e.DoInput(string(through(program)(t, data)), "load", "-q"); r.Code != 0 || !strings.Contains(r.Stdout, "Loaded image: a:1") {
			t.Errorf("%s: %v", program, r)
		}
		e.Is(ids, "image", "inspect", "-f", "{{.Id}}", "a:1", "b:1")
	}
	if r := e.DoInput(string(through("xz")(t, data)[:5000]), "load"); r.Code != 1 {
		t.Errorf("a part of an archive: %v", r)
	}
	// By ID there is no name in it.
	id := strings.Fields(ids)[0]
	r := e.Do("save", id)
	e.OK("rmi", "a:1")
	if r := e.DoInput(r.Stdout, "load"); r.Code != 0 || !strings.Contains(r.Stdout, "Loaded image ID: "+id) {
		t.Error(r)
	}
	e.Fails(1, "unexpected EOF|invalid tar|EOF|not a|no such file", "load", "-i", e.File("bad.tar", "not a tar"))
	e.Fails(1, "no such file or directory", "load", "-i", "/nosuch.tar")
	e.Fails(1, "reference does not exist|No such image", "save", "nosuch:1")
}

// oci makes an OCI image layout with one image, gzip layers and one index.
func oci(t *testing.T, ref string, layers ...[]byte) []byte {
	t.Helper()
	var members []harness.Entry
	blob := func(mediaType string, data []byte) map[string]any {
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		members = append(members, harness.Entry{Name: "blobs/sha256/" + sum, Body: string(data)})
		return map[string]any{"mediaType": mediaType, "digest": "sha256:" + sum, "size": len(data)}
	}
	marshal := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var diffIDs []string
	var descriptors []any
	for _, layer := range layers {
		diffIDs = append(diffIDs, fmt.Sprintf("sha256:%x", sha256.Sum256(layer)))
		var zipped bytes.Buffer
		w := gzip.NewWriter(&zipped)
		if _, err := w.Write(layer); err != nil {
			t.Fatal(err)
		}
		w.Close()
		descriptors = append(descriptors, blob("application/vnd.oci.image.layer.v1.tar+gzip", zipped.Bytes()))
	}
	config := blob("application/vnd.oci.image.config.v1+json", marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"cat", "/from"}, "Env": []string{"PATH=/bin"}}, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}}))
	manifest := blob("application/vnd.oci.image.manifest.v1+json", marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": descriptors}))
	manifest["annotations"] = map[string]string{"io.containerd.image.name": "docker.io/library/" + ref, "org.opencontainers.image.ref.name": strings.SplitN(ref, ":", 2)[1]}
	manifest["platform"] = map[string]string{"architecture": "amd64", "os": "linux"}
	members = append(members, harness.Entry{Name: "oci-layout", Body: `{"imageLayoutVersion":"1.0.0"}`},
		harness.Entry{Name: "index.json", Body: string(marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{manifest}}))})
	return harness.Layer(members...)
}

func TestLoadOCI(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd 20.10 does not load OCI layouts")
	}
	e := harness.New(t, daemon)
	base, err := harness.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	e.Load(oci(t, "layout:1", harness.Layer(base...), harness.Layer(harness.Entry{Name: "from", Body: "oci"})))
	e.Is("oci", "run", "--rm", "layout:1")
	// What we save is both a docker-archive and a layout.
	r := e.Do("save", "layout:1")
	names := map[string]bool{}
	tr := tar.NewReader(strings.NewReader(r.Stdout))
	for {
		h, err := tr.Next()
		if err != nil {
			break
		}
		names[h.Name] = true
	}
	for _, want := range []string{"manifest.json", "index.json", "oci-layout"} {
		if !names[want] {
			t.Errorf("save: no %s", want)
		}
	}
}

func TestImport(t *testing.T) {
	e := harness.New(t, daemon)
	base, err := harness.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	r := e.DoInput(string(harness.Layer(base...)), "import", "--change", "ENTRYPOINT [\"echo\",\"imported\"]", "-", "imp:1")
	if r.Code != 0 || !strings.HasPrefix(r.Stdout, "sha256:") {
		t.Fatal(r)
	}
	e.Is("imported x", "run", "--rm", "imp:1", "x")
	if r = e.DoInput("no tar", "import", "-", "imp:2"); r.Code != 1 {
		t.Error(r)
	}
	e.Fails(1, "no such file|cannot open|failed to open", "import", "/nosuch.tar")
	empty := e.File("t.tar", string(harness.Layer()))
	e.Fails(1, "run is not a valid change command", "import", "-c", "RUN x", empty, "imp:3")
	e.Fails(1, `"foo": unknown operating system or architecture`, "import", "--platform", "foo", empty, "imp:3")
	e.OK("import", "-c", "ENV A=b", "-c", `ENV P="$A:${Q:-c}"`, empty, "imp:4")
	e.Is("[A=b P=b:c]", "image", "inspect", "-f", "{{.Config.Env}}", "imp:4")
}

// Changes of a commit mean what they mean in a Dockerfile: variables stand for the container's environment, and a new entry point drops the command of the old one.
func TestCommitChanges(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("create", "--name", "made", "-e", "A=b", "-l", "l=1", image, "sleep", "1")
	e.OK("commit", "-c", "ENV B=$A:x", "-c", "LABEL m=$B", "-c", "WORKDIR /$A", "-c", "WORKDIR rel", "-c", `ENTRYPOINT ["echo"]`, "made", "changed:1")
	e.Is("b:x|map[l:1 m:b:x]|/b/rel|[echo]|[]", "image", "inspect", "-f",
		`{{range .Config.Env}}{{if eq (slice . 0 2) "B="}}{{slice . 2}}{{end}}{{end}}|{{.Config.Labels}}|{{.Config.WorkingDir}}|{{.Config.Entrypoint}}|{{.Config.Cmd}}`, "changed:1")
	e.Is("map[l:1]|[sleep 1]", "inspect", "-f", "{{.Config.Labels}}|{{.Config.Cmd}}", "made")
	e.Fails(1, "copy is not a valid change command", "commit", "-c", "COPY a b", "made", "changed:2")
}

// A name without a tag stands for all tags of its repository, though none of them is "latest".
func TestSaveRepository(t *testing.T) {
	e := harness.New(t, daemon)
	e.OK("tag", image, "several:1")
	e.OK("tag", image, "several:2")
	path := filepath.Join(e.Config, "several.tar")
	e.OK("save", "-o", path, "several", image)
	e.OK("rmi", "several:1", "several:2")
	e.Is("Loaded image: several:1\nLoaded image: several:2\nLoaded image: "+image, "load", "-i", path)
}

func TestRegistry(t *testing.T) {
	e := harness.New(t, daemon)
	addr := harness.Registry(t, "")
	name := addr + "/group/app:1"
	e.LoadImage(name, harness.ImageConfig{Cmd: []string{"cat", "/f"}}, harness.Layer(harness.Entry{Name: "f", Body: "pushed"}))
	id := e.OK("image", "inspect", "-f", "{{.Id}}", name)
	out := e.OK("push", name)
	i := strings.Index(out, "digest: sha256:")
	if i < 0 || !strings.Contains(out, "The push refers to repository ["+addr+"/group/app]") {
		t.Fatalf("push printed %q", out)
	}
	digest := strings.Fields(out[i:])[1]
	e.Match("Layer already exists", "push", name)
	byDigest := addr + "/group/app@" + digest
	e.Is("["+byDigest+"]", "image", "inspect", "-f", "{{.RepoDigests}}", name)
	e.OK("rmi", name)
	out = e.OK("pull", name)
	for _, want := range []string{"1: Pulling from group/app", "Pull complete", "Digest: " + digest, "Status: Downloaded newer image for " + name} {
		if !strings.Contains(out, want) && want != "Pull complete" { // the base layer may be there already
			t.Errorf("pull: no %q in\n%s", want, out)
		}
	}
	e.Is(id, "image", "inspect", "-f", "{{.Id}}", name)
	e.Match("Status: Image is up to date for "+name, "pull", name)
	e.Is(name, "pull", "-q", name)
	e.Is("pushed", "run", "--rm", name)
	e.OK("rmi", name)
	e.OK("pull", byDigest)
	e.Is("pushed", "run", "--rm", byDigest)
	e.OK("tag", image, addr+"/group/app:2")
	e.OK("push", "-a", addr+"/group/app")
	e.Match(": Pulling from group/app", "pull", "-a", addr+"/group/app")

	e.Fails(1, "manifest for "+addr+"/group/app:nosuch not found: manifest unknown", "pull", addr+"/group/app:nosuch")
	e.Fails(1, "(repository|manifest).*(not found|unknown)|name unknown", "pull", addr+"/nosuch")
	e.Fails(1, "An image does not exist locally with the tag: "+addr+"/nosuch|tag does not exist", "push", addr+"/nosuch:1")
	e.Fails(1, "connection refused|dial tcp", "pull", "127.0.0.1:1/x:1")
	e.Fails(1, "invalid reference format", "pull", "UPPER")
}

func TestRegistryLogin(t *testing.T) {
	e := harness.New(t, daemon)
	addr := harness.Registry(t, harness.Htpasswd)
	name := addr + "/private:1"
	e.OK("tag", image, name)
	e.Fails(1, "no basic auth credentials|unauthorized", "push", name)
	if r := e.DoInput("wrong", "login", "-u", "user", "--password-stdin", addr); r.Code != 1 || !strings.Contains(strings.ToLower(r.Stderr), "unauthorized") {
		t.Error(r)
	}
	if r := e.DoInput("secret", "login", "-u", "user", "--password-stdin", addr); r.Code != 0 || !strings.Contains(r.Stdout, "Login Succeeded") {
		t.Fatal(r)
	}
	e.OK("push", name)
	e.OK("rmi", name)
	e.OK("pull", name)
	e.OK("logout", addr)
	e.Fails(1, "no basic auth credentials|unauthorized", "pull", name)
}

func TestPrune(t *testing.T) {
	e := harness.New(t, daemon)
	e.LoadImage("old:1", harness.ImageConfig{Labels: map[string]string{"v": "1"}}, harness.Layer(harness.Entry{Name: "x", Body: strings.Repeat("x", 100000)}))
	old := e.OK("image", "inspect", "-f", "{{.Id}}", "old:1")
	e.LoadImage("old:1", harness.ImageConfig{Labels: map[string]string{"v": "2"}})
	e.Is("<none>", "images", "--filter", "dangling=true", "--format", "{{.Repository}}")
	out := e.OK("image", "prune", "-f")
	if !strings.Contains(out, "Deleted Images:\ndeleted: "+old) || !regexp.MustCompile(`Total reclaimed space: [12]\d\d(\.\d+)?kB`).MatchString(out) { // of the disk: the layer, and its blob if that is not settled
		t.Errorf("printed %q", out)
	}
	e.OK("create", "--name", "holds", image)
	e.Match("untagged: old:1", "image", "prune", "-af")
	e.Is(image, "images", "--format", "{{.Repository}}:{{.Tag}}")
}
