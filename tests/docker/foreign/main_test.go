// Package foreign tests containers of OCI runtimes other than our own: those that this machine has.
package foreign

import (
	"os/exec"
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

const image = harness.Image

// known are the runtimes, by the name that the daemon is given for them.
var known = map[string]string{"debian-runc": "runc", "debian-crun": "crun"}

func TestMain(m *testing.M) {
	var flags []string
	for name, program := range known {
		if path, err := exec.LookPath(program); err == nil {
			flags = append(flags, "--add-runtime", name+"="+path)
		}
	}
	harness.Main(m, &daemon, flags...)
}
