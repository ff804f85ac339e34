// Package lifecycle tests the commands that work on containers that are there: start to remove, exec, attach, logs, copies and listings.
package lifecycle

import (
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

const image = harness.Image
