// Package run tests what `docker run` and `docker create` do with each flag.
package run

import (
	"testing"

	"gantry/tests/harness"
)

var daemon *harness.Daemon

func TestMain(m *testing.M) { harness.Main(m, &daemon) }

func TestSmoke(t *testing.T) {
	e := harness.New(t, daemon)
	if got := e.Run(harness.Image, "echo", "hello"); got != "hello" {
		t.Fatalf("got %q", got)
	}
}
