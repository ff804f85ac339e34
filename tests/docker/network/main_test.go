// Package network tests the commands on networks and volumes, and how containers reach each other and are reached.
package network

import (
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

const image = harness.Image
