// Package goclient drives the API with moby's Go client, as programs do.
package goclient

import (
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

const image = harness.Image
