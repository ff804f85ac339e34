// Package crash tests what is left when a daemon or a shim is killed, and what the next start makes of it.
package crash

import (
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

const image = harness.Image
