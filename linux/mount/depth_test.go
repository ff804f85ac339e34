package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/linux/fd"
)

// TestDepth stacks 320 layers in both ways, on the newest kernel, too, with marks in either kind of attribute.
func TestDepth(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	base := filepath.Join(t.TempDir(), strings.Repeat("long/", 20))
	var lower []string
	for i := range 320 {
		d := filepath.Join(base, fmt.Sprint("layer-", i))
		if err := os.MkdirAll(filepath.Join(d, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "d", fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		lower = append(lower, d)
	}
	kinds := map[bool]string{false: "trusted.overlay.opaque", true: "user.overlay.opaque"}
	if err := syscall.Setxattr(base, "user.test", []byte("x"), 0); errors.Is(err, syscall.ENOTSUP) { // tmpfs, before Linux 6.6
		t.Log("this file system has no attributes of users")
		delete(kinds, true)
	}
	ways := map[string]func(OverlayOptions) (*os.File, error){"older": olderOverlay}
	if layerOption() {
		ways["newer"] = overlay
	}
	for way, mount := range ways {
		for user, attr := range kinds {
			upper, work := filepath.Join(t.TempDir(), "upper"), filepath.Join(t.TempDir(), "work")
			if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
				t.Fatal(err)
			}
			f, err := mount(OverlayOptions{Lower: lower, Upper: upper, Work: work, UserXattr: user})
			if err != nil {
				t.Errorf("%s: %v", way, err)
				continue
			}
			if list, err := os.ReadDir(fd.Path(f) + "/d"); err != nil || len(list) != len(lower) {
				t.Errorf("%s: %d of %d layers, %v", way, len(list), len(lower), err)
			}
			if err := errors.Join(os.RemoveAll(fd.Path(f)+"/d"), os.Mkdir(fd.Path(f)+"/d", 0o755)); err != nil {
				t.Errorf("%s: %v", way, err)
			}
			if n, err := syscall.Getxattr(upper+"/d", attr, make([]byte, 8)); err != nil || n != 1 {
				t.Errorf("%s: %s: %d %v", way, attr, n, err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
