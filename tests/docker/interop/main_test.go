// Package interop tests that what other tools write is read here, and what is written here is read there: registries, archives, layouts, and every compression of layers.
package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

// crane is built from its module, as Debian has no package of it.
const crane = "github.com/google/go-containerregistry/cmd/crane@v0.22.1"

// tools is where it is built.
func tools() string { return filepath.Join(harness.Root(), "bin", ".tools") }

func TestMain(m *testing.M) {
	if _, err := os.Stat(filepath.Join(tools(), "crane")); err != nil && !harness.IsInside() {
		cmd := exec.Command("go", "install", crane)
		cmd.Env = append(os.Environ(), "GOBIN="+tools(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "interop: crane will not be tested, as it cannot be built: %v\n%s", err, out)
		}
	}
	harness.Main(m, &daemon)
}
