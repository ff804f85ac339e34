package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/registry/registrytest"
	"gantry/tests/harness"
)

// onBtrfs has the data root of a daemon lie on a btrfs of its own.
func onBtrfs(d *harness.Daemon) error {
	disk := filepath.Join(d.Dir, "disk")
	if err := errors.Join(os.MkdirAll(d.DataRoot(), 0o700), os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 512<<20)); err != nil {
		return err
	}
	for _, args := range [][]string{{"mkfs.btrfs", "-q", disk}, {"mount", "-o", "loop", disk, d.DataRoot()}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%q: %w: %s", args, err, out)
		}
	}
	return nil
}

// With the drivers whose snapshots are whole trees, too, compressed ones are replaced by recipes, sent on as they came, counted as du does, and gone with their image.
func TestSettleDrivers(t *testing.T) {
	if harness.Oracle() {
		t.Skip("dockerd keeps no blobs")
	}
	from, to := registrytest.New(), registrytest.New()
	t.Cleanup(from.Close)
	t.Cleanup(to.Close)
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	plain := harness.Layer(harness.Entry{Name: "bin/part", Body: string(program[:500_000])})
	zipped := goGzip(6)(t, plain)
	want := push(t, from, "app", plain, zipped)
	for _, driver := range []string{"vfs", "btrfs"} {
		t.Run(driver, func(t *testing.T) {
			d, err := harness.NewDaemon(harness.Dir(), "s"+driver, "--keep-compressed", "--storage-driver", driver)
			if err != nil {
				t.Fatal(err)
			}
			if driver == "btrfs" {
				if known, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(known), "\tbtrfs\n") {
					t.Skip("needs a kernel with btrfs")
				}
				if err := onBtrfs(d); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { // after the daemon's end
					if err := syscall.Unmount(d.DataRoot(), 0); err != nil {
						t.Error(err)
					}
				})
			}
			if err := d.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := d.Stop(); err != nil {
					t.Error(err)
				}
			})
			e := harness.New(t, d)
			ref := from.Host() + "/app:1"
			e.OK("pull", "-q", ref)
			if n := len(stored(e, "blobs")); n != 3 {
				t.Errorf("%d blobs", n)
			}
			status, body, err := e.D.Do("POST", "/gantry/images/settle", "")
			var done struct{ Layers, Kept, SpaceReclaimed int }
			if err == nil {
				err = json.Unmarshal(body, &done)
			}
			if err != nil || status != 200 || done.Layers != 1 || done.Kept != 0 || done.SpaceReclaimed < len(zipped)/10*9 {
				t.Errorf("settle: %d %s %v", status, body, err)
			}
			if blobs, recipes := stored(e, "blobs"), stored(e, "recipes"); len(blobs) != 2 || len(recipes) != 1 {
				t.Errorf("blobs %q, recipes %q", blobs, recipes)
			}
			e.OK("create", "--name", "made", ref, "/x")
			asDu := func() {
				t.Helper()
				if said, is := df(e).LayersSize, du(e, "content", "layers", "tmp", "quarantine"); said != is {
					t.Errorf("images take up %d bytes, and du says %d", said, is)
				}
			}
			asDu()
			if status, body, err := e.D.Get("/gantry/fsck?layers=1"); err != nil || status != 200 || string(body) != "[]\n" {
				t.Errorf("fsck: %d %s %v", status, body, err)
			}
			copied := to.Host() + "/" + driver + ":1"
			e.OK("tag", ref, copied)
			e.Match("digest: "+want.String(), "push", copied)
			if status, body, err := e.D.Get("/images/" + copied + "/get"); err != nil || status != 200 || !bytes.Contains(body, zipped) {
				t.Errorf("save: %d %v, and the layer is not as it came", status, err)
			}
			e.OK("rm", "made")
			e.OK("rmi", ref, copied)
			e.Eventually(10*time.Second, func() error { // snapshots go in the background
				if left := append(append(stored(e, "blobs"), stored(e, "recipes")...), below(e, "layers/"+strings.Repeat("[0-9a-f]", 64))...); len(left) > 0 {
					return fmt.Errorf("left after the image was removed: %q", left)
				}
				return nil
			})
			asDu()
		})
	}
}

func below(e *harness.Env, pattern string) []string {
	e.Helper()
	names, err := filepath.Glob(filepath.Join(e.D.DataRoot(), pattern))
	if err != nil {
		e.Fatal(err)
	}
	return names
}

// stored lists the blobs, or the recipes, of a store.
func stored(e *harness.Env, form string) []string {
	e.Helper()
	return below(e, "content/"+form+"/sha256/*")
}
