// Package run tests what each flag of `docker run` and `docker create` does, and how each fails.
package run

import (
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

const image = harness.Image
