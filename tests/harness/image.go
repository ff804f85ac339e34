package harness

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Image is the image that every test may use: busybox and tests/probe with /etc/passwd of root and a user "app" (1000:1000, also in group 2000), made by the harness.
const Image = "busybox:test"

// Entry is one member of a layer.
type Entry struct {
	Name     string
	Body     string
	Mode     int64 // default 0644, directories 0755
	Type     byte  // tar's type; 0 is a regular file, or a directory when the name ends with a slash
	Link     string
	UID, GID int
	Xattrs   map[string]string
	Major    int64
	Minor    int64
}

// Layer returns a tar of entries.
func Layer(entries ...Entry) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Mode: e.Mode, Typeflag: e.Type, Linkname: e.Link, Uid: e.UID, Gid: e.GID, Devmajor: e.Major, Devminor: e.Minor, Size: int64(len(e.Body)), Format: tar.FormatPAX}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(e.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		for k, v := range e.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := w.Write([]byte(e.Body)); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// Busybox returns the entries of the base layer.
func Busybox() ([]Entry, error) {
	var body []byte
	var err error
	for _, path := range []string{os.Getenv("GANTRY_TEST_BUSYBOX"), "/bin/busybox", "/usr/bin/busybox"} {
		if body, err = os.ReadFile(path); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("busybox-static is not installed: %w", err)
	}
	probe, err := os.ReadFile(probePath())
	if err != nil {
		return nil, err
	}
	list, err := exec.Command("busybox", "--list").Output()
	if err != nil {
		return nil, err
	}
	entries := []Entry{
		{Name: "bin/"}, {Name: "dev/"}, {Name: "etc/"}, {Name: "home/"}, {Name: "home/app/", UID: 1000, GID: 1000}, {Name: "proc/"}, {Name: "root/", Mode: 0o700},
		{Name: "sys/"}, {Name: "tmp/", Mode: 0o1777}, {Name: "usr/"}, {Name: "var/"},
		{Name: "bin/busybox", Body: string(body), Mode: 0o755},
		{Name: "bin/probe", Body: string(probe), Mode: 0o755},
		{Name: "etc/passwd", Body: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\napp:x:1000:1000:app:/home/app:/bin/sh\n"},
		{Name: "etc/group", Body: "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nextra:x:2000:app\n"},
		{Name: "etc/notexec", Body: "#!/bin/sh\necho no\n"},
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			entries = append(entries, Entry{Name: "bin/" + applet, Mode: 0o755, Type: tar.TypeLink, Link: "bin/busybox"})
		}
	}
	return entries, nil
}

// ImageConfig is the part of an image's configuration that tests set.
type ImageConfig struct {
	User         string              `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	Healthcheck  any                 `json:",omitempty"`
}

// Archive returns a docker-archive of one image.
func Archive(tag string, config ImageConfig, layers ...[]byte) []byte {
	diffIDs := []string{}
	history := []map[string]any{}
	names := []string{}
	members := []Entry{}
	for i, layer := range layers {
		sum := fmt.Sprintf("%x", sha256.Sum256(layer))
		diffIDs = append(diffIDs, "sha256:"+sum)
		names = append(names, sum+"/layer.tar")
		history = append(history, map[string]any{"created": "2024-01-02T03:04:05Z", "created_by": fmt.Sprintf("layer %d", i+1)})
		members = append(members, Entry{Name: sum + "/layer.tar", Body: string(layer)})
	}
	text, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z", "config": config, "history": history,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		panic(err)
	}
	id := fmt.Sprintf("%x", sha256.Sum256(text))
	manifest, err := json.Marshal([]map[string]any{{"Config": id + ".json", "RepoTags": []string{tag}, "Layers": names}})
	if err != nil {
		panic(err)
	}
	return Layer(append(members, Entry{Name: id + ".json", Body: string(text)}, Entry{Name: "manifest.json", Body: string(manifest)})...)
}

// BusyboxArchive returns Image under a tag and with a configuration of the test's own; further layers go on top.
func BusyboxArchive(tag string, config ImageConfig, more ...[]byte) ([]byte, error) {
	base, err := Busybox()
	if err != nil {
		return nil, err
	}
	if len(config.Env) == 0 {
		config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	if len(config.Cmd) == 0 && len(config.Entrypoint) == 0 {
		config.Cmd = []string{"sh"}
	}
	return Archive(tag, config, append([][]byte{Layer(base...)}, more...)...), nil
}

// LoadImage loads an image with a configuration and layers of the test's own on top of busybox.
func (e *Env) LoadImage(tag string, config ImageConfig, more ...[]byte) {
	e.Helper()
	data, err := BusyboxArchive(tag, config, more...)
	if err != nil {
		e.Fatal(err)
	}
	e.Load(data)
}

// Load loads an archive.
func (e *Env) Load(archive []byte) {
	e.Helper()
	if r := e.DoInput(string(archive), "load"); r.Code != 0 {
		e.Fatalf("load: %v", r)
	}
}

// Base loads Image unless the daemon has it.
func (d *Daemon) Base() error {
	if status, _, err := d.Get("/images/" + Image + "/json"); err == nil && status == 200 {
		return nil
	}
	data, err := BusyboxArchive(Image, ImageConfig{})
	if err != nil {
		return err
	}
	resp, err := d.HTTP().Post("http://d/images/load?quiet=1", "application/x-tar", bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != 200 || strings.Contains(answer.String(), `"error"`) {
		return fmt.Errorf("load %s: %s: %s", Image, resp.Status, answer.String())
	}
	return nil
}
