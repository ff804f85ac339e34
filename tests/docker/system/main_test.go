// Package system tests the commands on the daemon as a whole, its flags, its configuration and the raw API.
package system

import (
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

const image = harness.Image
