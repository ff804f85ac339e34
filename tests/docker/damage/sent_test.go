package damage

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/registry/registrytest"
	"gantry/tests/harness"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// noise is content that does not compress.
func noise(n int, seed byte) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

// flip flips a bit in the middle of a file.
func flip(e *harness.Env, path string) {
	e.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		e.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		e.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{body[len(body)/2] ^ 4}, int64(len(body)/2)); err != nil {
		e.Fatal(err)
	}
}

// settled has all layers' blobs replaced by recipes.
func settled(e *harness.Env) {
	e.Helper()
	if status, body, err := e.D.Do("POST", "/gantry/images/settle", ""); err != nil || status != 200 {
		e.Fatal(status, string(body), err)
	}
}

func zip(e *harness.Env, data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		e.Fatal(err)
	}
	return b.Bytes()
}

// A blob that was damaged behind the daemon's back leaves it for no registry and no archive: who reads it says so, and from then on it is fetched again by a pull.
func TestDamagedOnTheWay(t *testing.T) {
	e := own(t, "sent", nil)
	from, to := registrytest.New(), registrytest.New()
	t.Cleanup(from.Close)
	t.Cleanup(to.Close)
	body := strings.Repeat(noise(900_000, 1), 2)
	for _, c := range []struct {
		name  string
		form  string // folder of the file that is damaged
		layer func() []byte
	}{
		{"compressed", "content/blobs", func() []byte { return zip(e, harness.Layer(harness.Entry{Name: "zipped", Body: body})) }},
		{"recipe", "content/recipes", func() []byte {
			return zip(e, harness.Layer(harness.Entry{Name: "settled", Body: fmt.Sprintf("%x", noise(100_000, 2))}))
		}},
		{"layer", "layers", func() []byte { return zip(e, harness.Layer(harness.Entry{Name: "below", Body: body[:700_000]})) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := *e
			e.T = t
			layer := c.layer()
			from.AddImage(c.name, "1", ocispec.Platform{OS: "linux", Architecture: "amd64"}, layer)
			name, target := from.Host()+"/"+c.name+":1", to.Host()+"/"+c.name+":1"
			e.OK("pull", name)
			e.OK("tag", name, target)
			if c.form != "content/blobs" {
				settled(&e)
			}
			d := digest.FromBytes(layer)
			path := filepath.Join(e.D.DataRoot(), c.form, "sha256", d.Encoded())
			if c.form == "layers" {
				unpacked := filepath.Join(e.D.DataRoot(), c.form, digest.Digest(e.Inspect(name, "{{index .RootFS.Layers 0}}")).Encoded())
				if path = filepath.Join(unpacked, "layer.erofs"); !exists(path) {
					path = filepath.Join(unpacked, "fs", "below")
				}
			}
			says := `blob ` + d.String() + ` is damaged: .*gantry system fsck --repair`
			saved := filepath.Join(e.Config, "saved")
			verbs := [][]string{{"push", target}, {"save", "-o", saved, target}}
			if c.form == "layers" {
				slices.Reverse(verbs)
			}
			for _, verb := range verbs {
				flip(&e, path)
				r := e.Do(verb...)
				if r.Code == 0 || !matches(says, r.Stderr+r.Stdout) {
					t.Errorf("%v", r)
				}
				if log := e.D.LogTail(6); verb[0] == "save" && !matches(d.String(), log) {
					t.Errorf("the daemon's log says %s", log)
				}
				if to.Blob(c.name, d) != nil || to.Manifest(c.name, "1") != nil {
					t.Error("the registry has it")
				}
				if exists(saved) {
					t.Error("there is an archive")
				}
				e.Fails(1, says+`|`+d.String(), "save", "-o", saved, target) // it is known by now, however it is kept
				e.D.Kill()
				if err := e.D.Start(); err != nil {
					t.Fatal(err)
				}
				if found := check(t, &e, ""); !matches(says, strings.Join(found, " ")) {
					t.Errorf("fsck of the next daemon says %v", found)
				}
				asked := from.Count("GET", "/blobs/"+d.String())
				e.OK("pull", name)
				if from.Count("GET", "/blobs/"+d.String()) == asked {
					t.Error("the pull did not fetch it again")
				}
				e.OK("save", "-o", saved, target)
				if err := os.Remove(saved); err != nil {
					t.Fatal(err)
				}
				if found := check(t, &e, ""); len(found) > 0 {
					t.Errorf("fsck after the pull: %v", found)
				}
				if c.form == "layers" {
					break // the layer is as it was
				}
				if c.form == "content/recipes" {
					settled(&e)
				}
			}
			e.OK("push", target)
			if !bytes.Equal(to.Blob(c.name, d), layer) {
				t.Error("another blob was pushed")
			}
			e.OK("rmi", "-f", name, target)
		})
	}
	// What is damaged of a layer that was loaded, a push compresses.
	e.Load(harness.Archive(to.Host()+"/loaded:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "loaded", Body: body})))
	sum := fmt.Sprintf("%x", sha256.Sum256(harness.Layer(harness.Entry{Name: "loaded", Body: body})))
	flip(e, filepath.Join(e.D.DataRoot(), "content/blobs/sha256", sum))
	e.Fails(1, "sha256:"+sum+" is damaged: .*gantry system fsck --repair", "push", to.Host()+"/loaded:1")
	if to.Manifest("loaded", "1") != nil {
		t.Error("the registry has it")
	}
	e.Load(harness.Archive(to.Host()+"/loaded:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "loaded", Body: body})))
	e.OK("push", to.Host()+"/loaded:1")
	check(t, e, "layers=1&repair=1")
	if left := check(t, e, "layers=1"); len(left) > 0 {
		t.Error(left)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A repair fetches from a registry with a password what the command line has credentials for, and takes away in the same run what it has moved to quarantine.
func TestRepairWithPassword(t *testing.T) {
	e := own(t, "secret", nil)
	addr := harness.Registry(t, harness.Htpasswd)
	login := func() {
		t.Helper()
		if r := e.DoInput("secret", "login", "-u", "user", "--password-stdin", addr); r.Code != 0 {
			t.Fatal(r)
		}
	}
	repair := func() (int, string) {
		cmd := e.Cmd("-H", e.D.Host(), "system", "fsck", "--repair")
		cmd.Path, cmd.Args[0] = harness.Bin("gantry"), "gantry"
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	login()
	name := addr + "/private:1"
	e.Load(harness.Archive(name, harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "private", Body: noise(100_000, 4)})))
	e.OK("push", name)
	e.OK("rmi", name)
	e.OK("pull", name)
	blobs, err := filepath.Glob(filepath.Join(e.D.DataRoot(), "content/blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range blobs {
		if st, err := os.Stat(path); err != nil || st.Size() < 90_000 || st.Size() > 200_000 {
			continue
		}
		e.OK("logout", addr)
		flip(e, path)
		if code, said := repair(); code != 1 || !matches(`cannot repair blob .*gantry pull `+name[:len(name)-2]+`.*with credentials`, said) {
			t.Errorf("without credentials: %d %s", code, said)
		}
		login()
		if code, said := repair(); code != 0 {
			t.Errorf("with credentials: %d %s", code, said)
		}
		if code, said := repair(); code != 0 || !strings.HasPrefix(said, "clean") {
			t.Errorf("once more: %d %s", code, said)
		}
		e.OK("rmi", "-f", name)
		return
	}
	t.Fatalf("the layer is not in %v", blobs)
}
