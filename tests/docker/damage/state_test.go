package damage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/tests/harness"
)

// Whatever happens to a file of state while no daemon runs, the daemon starts, says what is damaged, and all other objects work.
func TestDamagedState(t *testing.T) {
	e := own(t, "state", nil)
	damages := []struct {
		name string
		do   func([]byte) []byte
	}{
		{"emptied", func([]byte) []byte { return nil }},
		{"zeroed", func(b []byte) []byte { return make([]byte, len(b)) }},
		{"flipped", func(b []byte) []byte {
			c := append([]byte(nil), b...)
			for i := len(c) / 3; i < len(c); i += max(len(c)/5, 1) {
				c[i] ^= 0x41
			}
			return c
		}},
	}
	for _, file := range []string{
		"data/gantry.db", "data/gantry.db-wal", "data/gantry.db.reserve", "data/containers/*/record.json", "data/containers/*/hosts", "data/containers/*/resolv.conf",
		"data/containers/*/*.log", "data/layers/*/layer.json", "data/snapshots/*/layers", "data/content/blobs/sha256/*", "data/content/index.json",
		"exec/c/*/*",
	} {
		for _, damage := range damages {
			e.LoadImage("second:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "second", Body: "second"}))
			victim := e.OK("create", "--name", "victim", "-v", "keep:/keep", "second:1", "sh", "-c", "echo told; cat /keep/f; sleep 1000")
			e.OK("run", "--rm", "-v", "keep:/keep", image, "sh", "-c", "echo kept > /keep/f")
			e.OK("start", victim)
			if strings.HasPrefix(file, "data/") {
				e.OK("kill", victim)
				e.OK("wait", victim)
			}
			e.D.Kill() // leaves the log of the database
			paths, err := filepath.Glob(filepath.Join(e.D.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			hit := 0
			for _, path := range paths {
				body, err := os.ReadFile(path)
				if err != nil {
					continue // a socket
				}
				if err := os.WriteFile(path, damage.do(body), 0o600); err != nil {
					t.Fatal(err)
				}
				hit++
			}
			what := file + " " + damage.name
			if hit == 0 && !strings.HasSuffix(file, "*/*") && !strings.HasSuffix(file, "index.json") {
				t.Errorf("%s: there is none", what)
			}
			if err := e.D.Start(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			found := ours(e)
			if data, err := os.ReadFile(filepath.Join(e.D.DataRoot(), "volumes/keep/_data/f")); err != nil || string(data) != "kept\n" {
				t.Errorf("%s: the volume's content is %q, %v", what, data, err)
			}
			e.OK("ps", "-a")
			base, err := harness.BusyboxArchive(image, harness.ImageConfig{})
			if err != nil {
				t.Fatal(err)
			}
			damagedLayer := strings.HasPrefix(file, "data/layers") // until its image is repaired
			if r := e.DoInput(string(base), "load"); r.Code != 0 && !damagedLayer {
				t.Errorf("%s: load: %v", what, r)
			}
			if r := e.Do("run", "--rm", "--pull", "never", image, "echo", "hi"); r.Stdout != "hi\n" && !damagedLayer {
				t.Errorf("%s: a new container: %v\nfsck found %q", what, r, found)
			}
			uppers, _ := filepath.Glob(filepath.Join(e.D.DataRoot(), "snapshots/*/upper"))
			if status, body, err := e.D.Get("/gantry/fsck?repair=1"); err != nil || status != 200 {
				t.Errorf("%s: repair: %d %s %v", what, status, body, err)
			}
			// A repair takes nothing from a container.
			for _, upper := range uppers {
				if _, err := os.Stat(upper); err != nil {
					t.Errorf("%s: the repair removed a container's files: %v", what, err)
				}
			}
			left := ours(e)
			for _, line := range left {
				if strings.Contains(line, "database was moved aside") {
					t.Errorf("%s: after repair: %s", what, line)
				}
				t.Logf("%s: after repair: %s", what, line)
			}
			if err := reset(e); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
}

// reset gives the daemon an empty data root.
func reset(e *harness.Env) error {
	if ids := strings.Fields(e.OK("ps", "-aq")); len(ids) > 0 {
		e.Do(append([]string{"rm", "-f"}, ids...)...)
	}
	if err := e.D.Stop(); err != nil {
		return err
	}
	if err := os.RemoveAll(e.D.DataRoot()); err != nil {
		return err
	}
	if err := os.RemoveAll(e.D.ExecRoot()); err != nil {
		return err
	}
	if err := e.D.Start(); err != nil {
		return err
	}
	return e.D.Base()
}
