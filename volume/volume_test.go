package volume_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/db"
	"gantry/errdefs"
	"gantry/event"
	"gantry/linux/dir"
	"gantry/volume"
)

func open(t *testing.T, root string) *volume.Service {
	t.Helper()
	d, err := db.Open(filepath.Join(root, "gantry.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	s, err := volume.Open(context.Background(), volume.Options{Root: filepath.Join(root, "volumes"), DB: d, Events: new(event.Bus)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func clean(t *testing.T, s *volume.Service) {
	t.Helper()
	differences, err := s.Check(context.Background())
	if err != nil || len(differences) > 0 {
		t.Errorf("check: %+v, %v", differences, err)
	}
}

func TestLife(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	s := open(t, root)
	v, err := s.Create(ctx, "data", "", nil, map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.Mountpoint, "f"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Create(ctx, "data", "local", nil, nil); err != nil || again.Labels["a"] != "b" {
		t.Errorf("created again: %+v, %v", again, err)
	}
	if err := s.Acquire(ctx, "data", "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "data", false); !errdefs.Is(err, errdefs.Conflict) || !strings.Contains(err.Error(), "remove data: volume is in use - [c1]") {
		t.Errorf("remove in use: %v", err)
	}
	disk, err := dir.Usage(ctx, filepath.Dir(v.Mountpoint))
	if err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(ctx, "data"); err != nil || u.Size != disk || u.RefCount != 1 {
		t.Errorf("usage: %+v, %v", u, err)
	}
	anonymous, err := s.Create(ctx, "", "", nil, nil)
	if err != nil || !anonymous.Anonymous || len(anonymous.Name) != 64 {
		t.Errorf("anonymous: %+v, %v", anonymous, err)
	}
	clean(t, s)

	s = open(t, root) // a restart
	if v, err := s.Get(ctx, "data"); err != nil || v.Labels["a"] != "b" {
		t.Errorf("after restart: %+v, %v", v, err)
	}
	if disk, err = dir.Usage(ctx, filepath.Dir(anonymous.Mountpoint)); err != nil {
		t.Fatal(err)
	}
	names, freed, err := s.Prune(ctx, func(v *volume.Volume) bool { return v.Anonymous })
	if err != nil || len(names) != 1 || names[0] != anonymous.Name || freed != disk {
		t.Errorf("prune: %v %d %v", names, freed, err)
	}
	if err := s.Remove(ctx, "data", false); err != nil {
		t.Error(err)
	}
	if err := s.Remove(ctx, "data", false); !errdefs.Is(err, errdefs.NotFound) || err.Error() != "get data: no such volume" {
		t.Errorf("remove twice: %v", err)
	}
	if err := s.Remove(ctx, "data", true); err != nil {
		t.Errorf("forced: %v", err)
	}
	clean(t, s)
	if left, _ := os.ReadDir(filepath.Join(root, "volumes")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAdopt(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"kept/_data/x", "empty/_data", ".removed-1234/_data/x"} {
		if err := os.MkdirAll(filepath.Join(root, "volumes", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, root)
	all, err := s.List(context.Background())
	if err != nil || len(all) != 1 || all[0].Name != "kept" {
		t.Errorf("%+v, %v", all, err)
	}
	clean(t, s)
}

func TestRefusals(t *testing.T) {
	s := open(t, t.TempDir())
	for _, c := range []struct {
		name, driver string
		options      map[string]string
		kind         errdefs.Kind
		words        string
	}{
		{"a", "", nil, errdefs.InvalidParameter, "too short"},
		{"../x", "", nil, errdefs.InvalidParameter, "includes invalid characters for a local volume name"},
		{"a/b", "", nil, errdefs.InvalidParameter, "includes invalid characters"},
		{".hidden", "", nil, errdefs.InvalidParameter, "includes invalid characters"},
		{"ok", "nfs4", nil, errdefs.NotFound, `plugin "nfs4" not found`},
		{"ok", "", map[string]string{"x": "y"}, errdefs.InvalidParameter, `invalid option: "x"`},
		{"ok", "", map[string]string{"type": "tmpfs"}, errdefs.InvalidParameter, `missing required option: "device"`},
	} {
		_, err := s.Create(context.Background(), c.name, c.driver, c.options, nil)
		if !errdefs.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("create %q: %v", c.name, err)
		}
	}
}

func TestMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	ctx, root := context.Background(), t.TempDir()
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, root)
	for name, options := range map[string]map[string]string{
		"bound": {"type": "none", "o": "bind,ro", "device": source},
		"tmp":   {"type": "tmpfs", "o": "size=1m", "device": "tmpfs"},
	} {
		if _, err := s.Create(ctx, name, "", options, nil); err != nil {
			t.Fatal(err)
		}
		var path string
		for _, c := range []string{"c1", "c2", "c1"} {
			var err error
			if path, err = s.Mount(ctx, name, c); err != nil {
				t.Fatal(err)
			}
		}
		err := os.WriteFile(filepath.Join(path, "g"), nil, 0o600)
		if _, serr := os.Stat(filepath.Join(path, "f")); (name == "bound") != (serr == nil) || (name == "bound") != (err != nil) {
			t.Errorf("%s: %v, %v", name, serr, err)
		}
		s = open(t, root) // a restart
		for range 2 {
			for _, c := range []string{"c1", "c2"} {
				if err := s.Unmount(ctx, name, c); err != nil {
					t.Error(err)
				}
			}
		}
		if left, _ := os.ReadDir(path); len(left) > 0 {
			t.Errorf("%s still mounted: %v", name, left)
		}
		if err := s.Remove(ctx, name, false); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Create(ctx, "broken", "", map[string]string{"type": "none", "o": "bind", "device": source + "/no"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(ctx, "broken", "c1"); err == nil || !strings.Contains(err.Error(), "failed to mount local volume") {
		t.Errorf("broken: %v", err)
	}
	if _, err := os.Stat(source + "/f"); err != nil {
		t.Errorf("the bound directory's content is gone: %v", err)
	}
	if err := s.Remove(ctx, "broken", false); err != nil {
		t.Error(err)
	}
}
