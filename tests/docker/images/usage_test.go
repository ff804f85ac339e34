package images

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gantry/tests/harness"
)

// driven starts a further daemon with a storage driver.
func driven(t *testing.T, name, driver string) *harness.Env {
	t.Helper()
	if harness.Oracle() {
		t.Skip("about the store of gantryd")
	}
	d, err := harness.NewDaemon(harness.Dir(), name, "--storage-driver", driver)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return harness.New(t, d)
}

// du returns what du says of files below the data root.
func du(e *harness.Env, patterns ...string) int64 {
	e.Helper()
	args := []string{"-s", "-c", "--block-size=1"}
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(e.D.DataRoot(), p))
		if err != nil {
			e.Fatal(err)
		}
		args = append(args, found...)
	}
	out, err := exec.Command("du", args...).Output()
	if err != nil {
		e.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	total, _, _ := strings.Cut(lines[len(lines)-1], "\t")
	n, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		e.Fatal(err)
	}
	return n
}

type usage struct {
	LayersSize int64
	Images     []struct{ ID, Size, SharedSize any }
	Containers []struct{ SizeRw int64 }
	Volumes    []struct{ UsageData struct{ Size int64 } }
}

func df(e *harness.Env) (u usage) {
	e.Helper()
	if out, err := exec.Command("sync", "-f", e.D.DataRoot()).CombinedOutput(); err != nil { // blocks are given out when data is written back
		e.Fatal(string(out), err)
	}
	status, body, err := e.D.Get("/v1.41/system/df")
	if err == nil {
		err = json.Unmarshal(body, &u)
	}
	if err != nil || status != 200 {
		e.Fatalf("system df: %d %s %v", status, body, err)
	}
	return u
}

// What `system df` says is what du says, to the block.
func TestUsageIsDisk(t *testing.T) {
	for _, driver := range []string{"erofs", "overlay2", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			e := driven(t, "du"+driver, driver)
			var tiny []harness.Entry
			for i := range 300 {
				tiny = append(tiny, harness.Entry{Name: fmt.Sprintf("tiny/%d", i), Body: "x"})
			}
			e.LoadImage("one:1", harness.ImageConfig{}, harness.Layer(tiny...), harness.Layer(harness.Entry{Name: "zeros", Body: strings.Repeat("\x00", 5<<20)}))
			e.LoadImage("two:1", harness.ImageConfig{}, harness.Layer(harness.Entry{Name: "own", Body: strings.Repeat("two", 100_000)}))
			e.OK("run", "--name", "wrote", "-v", "vol:/vol", "one:1", "sh", "-c",
				"truncate -s 300M /sparse /vol/sparse; dd if=/dev/zero of=/full bs=64k count=20; ln /full /again; for i in 1 2 3 4 5; do echo $i > /vol/$i; done; rm -r /tiny; ln /vol/1 /vol/more")
			e.OK("create", "--name", "made", "two:1")
			e.OK("tag", "two:1", "three:1")
			u := df(e)
			if want := du(e, "content", "layers", "tmp", "quarantine"); u.LayersSize != want {
				t.Errorf("images take up %d bytes, and du says %d", u.LayersSize, want)
			}
			var containers, volumes int64
			for _, c := range u.Containers {
				containers += c.SizeRw
			}
			for _, v := range u.Volumes {
				volumes += v.UsageData.Size
			}
			if want := du(e, "snapshots/*"); containers != want || len(u.Containers) != 2 {
				t.Errorf("%d containers take up %d bytes, and du says %d", len(u.Containers), containers, want)
			}
			if want := du(e, "volumes/*"); volumes != want || len(u.Volumes) != 1 {
				t.Errorf("%d volumes take up %d bytes, and du says %d", len(u.Volumes), volumes, want)
			}
			// The rest is records.
			rest := du(e, ".") - u.LayersSize - containers - volumes
			if known := du(e, "gantry.db*", "containers", "lock", "network*"); rest-known < 0 || rest-known > 5*4096 { // and the folders
				t.Errorf("%d bytes are explained by nothing; in %s: %v", rest-known, e.D.DataRoot(), names(e))
			}
			// What a prune says it frees is what du misses afterwards, and a rehearsal knows it.
			e.OK("rm", "made")
			e.Eventually(10*time.Second, func() error { // its files go in the background
				if left, _ := filepath.Glob(filepath.Join(e.D.DataRoot(), "tmp", "*")); len(left) > 0 {
					return fmt.Errorf("left: %v", left)
				}
				return nil
			})
			before := df(e).LayersSize
			said := rehearse(e, "/gantry/prune?images=1&filters="+`{"dangling":{"false":true}}`)
			r := e.OK("image", "prune", "-af")
			if freed := before - df(e).LayersSize; said < freed-64<<10 || said > freed+64<<10 || freed < 300_000 {
				t.Errorf("%d bytes were freed, and %d announced: %s", freed, said, r)
			}
			e.OK("rm", "wrote")
		})
	}
}

func names(e *harness.Env) (all []string) {
	entries, _ := os.ReadDir(e.D.DataRoot())
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

// rehearse returns how many bytes a rehearsal says would be freed.
func rehearse(e *harness.Env, path string) int64 {
	e.Helper()
	var out struct{ SpaceReclaimed int64 }
	status, body, err := e.D.Get(path)
	if err == nil {
		err = json.Unmarshal(body, &out)
	}
	if err != nil || status != 200 {
		e.Fatalf("%s: %d %s %v", path, status, body, err)
	}
	return out.SpaceReclaimed
}
