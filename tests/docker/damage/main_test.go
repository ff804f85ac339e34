// Package damage tests what a full disk, damaged state files and hostile images and containers do to the daemon and to the host.
package damage

import (
	"os"
	"regexp"
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

const image = harness.Image

// own starts a further daemon with the test image; prepare, unless nil, makes its data root. It keeps blobs as they came: tests damage them, and fill disks that are to stay full.
func own(t *testing.T, name string, prepare func(*harness.Daemon)) *harness.Env {
	t.Helper()
	if harness.Oracle() {
		t.Skip("about the state of gantryd")
	}
	d, err := harness.NewDaemon(harness.Dir(), name, "--keep-compressed")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(d.DataRoot(), 0o700); err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(d)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if err := d.Base(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return harness.New(t, d)
}

// matches reports whether text matches the regular expression.
func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }
