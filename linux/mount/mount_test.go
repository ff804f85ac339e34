package mount_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/linux/mount"
)

func TestParse(t *testing.T) {
	for options, want := range map[string]mount.Options{
		"":                           {},
		"ro,nosuid":                  {Set: mount.ReadOnly | mount.NoSuid},
		"ro,rw":                      {Clear: mount.ReadOnly},
		"rbind,rslave":               {Bind: true, Recursive: true, Propagation: mount.Slave, PropagationRec: true},
		"bind,private":               {Bind: true, Propagation: mount.Private},
		"rro,rnosuid":                {RecSet: mount.ReadOnly | mount.NoSuid},
		"rro,rrw":                    {RecClear: mount.ReadOnly},
		"size=64m,mode=755,nodev":    {Set: mount.NoDev, Data: []string{"size=64m", "mode=755"}},
		"tmpcopyup,defaults":         {CopyUp: true},
		"strictatime":                {Set: mount.StrictAtime, Clear: mount.NoAtime | mount.StrictAtime},
		"runbindable,relatime,async": {Clear: mount.NoAtime | mount.StrictAtime, Propagation: mount.Unbindable, PropagationRec: true},
	} {
		got, err := mount.Parse(strings.Split(options, ","))
		got.Clear &^= 0x40 // the field of atime attributes has a bit that no attribute of ours uses
		want.Clear &^= 0x40
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%q: %+v, %v, want %+v", options, got, err, want)
		}
	}
	if _, err := mount.Parse([]string{"a\x00"}); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Errorf("zero byte: %v", err)
	}
}

func root(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
}

func TestFS(t *testing.T) {
	root(t)
	f, err := mount.FS("tmpfs", "tmpfs", []string{"size=64k", "mode=700", "noexec"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.WriteFile(fd.Path(f)+"/x", make([]byte, 100<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("size: %v", err)
	}
	if err := mount.SetAttr(f, mount.ReadOnly, 0, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fd.Path(f)+"/y", nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("read-only: %v", err)
	}
	if _, err := mount.FS("nofs", "", nil); !errdefs.Is(err, errdefs.InvalidParameter) {
		t.Errorf("unknown type: %v", err)
	}
	if _, err := mount.FS("tmpfs", "", []string{"nooption=1"}); err == nil || !strings.Contains(err.Error(), "nooption") {
		t.Errorf("unknown option: %v", err)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(table), "size=64k,mode=700") {
		t.Errorf("the mount is attached: %v", err)
	}
}

func TestBindAndMove(t *testing.T) {
	root(t)
	src, dst := t.TempDir(), t.TempDir()
	if err := os.WriteFile(src+"/file", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := mount.Bind(src, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := mount.SetAttr(f, 0, 0, mount.Private, true); err != nil {
		t.Fatal(err)
	}
	if err := mount.MoveTo(f, dst); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(dst + "/file"); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
	for range 2 { // the second finds nothing
		if err := mount.Unmount(dst); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dst + "/file"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the unmount: %v", err)
	}
	if _, err := mount.Bind(src+"/none", false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("bind of nothing: %v", err)
	}
}

// TestOverlay stacks more layers than a string of options holds, with names that need care in one.
func TestOverlay(t *testing.T) {
	root(t)
	dir := t.TempDir()
	var lower []string
	for i := range 100 {
		d := filepath.Join(dir, fmt.Sprintf("layer:with,odd\\name-%d", i))
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"all", fmt.Sprint("only-", i)} {
			if err := os.WriteFile(filepath.Join(d, name), []byte(fmt.Sprint(i)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		lower = append(lower, d)
	}
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		t.Fatal(err)
	}
	f, err := mount.Overlay(mount.OverlayOptions{Lower: lower, Upper: upper, Work: work})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(fd.Path(f))
	if err != nil || len(entries) != 101 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if data, err := os.ReadFile(fd.Path(f) + "/all"); err != nil || string(data) != "0" {
		t.Errorf("the top layer is %q, %v", data, err)
	}
	if err := os.WriteFile(fd.Path(f)+"/new", nil, 0o644); err != nil {
		t.Error(err)
	}
	f.Close()
	if list, err := os.ReadDir(upper); err != nil || !slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == "new" }) {
		t.Errorf("upper: %v, %v", list, err)
	}
	f, err = mount.Overlay(mount.OverlayOptions{Lower: lower[:2], ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.WriteFile(fd.Path(f)+"/new", nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("read-only overlay: %v", err)
	}
	if _, err := mount.Overlay(mount.OverlayOptions{}); err == nil {
		t.Error("no layers: no error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("rbind,ro,size=1,rprivate")
	f.Fuzz(func(t *testing.T, options string) {
		o, err := mount.Parse(strings.Split(options, ","))
		if err == nil && (o.Set&o.Clear&^0x70 != 0 || o.RecSet&o.RecClear&^0x70 != 0) {
			t.Errorf("%q sets and clears the same", options)
		}
	})
}
