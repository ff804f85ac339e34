// Package images tests the commands on images, and what of an image reaches a container.
package images

import (
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

const image = harness.Image
