package native_test

import (
	"os"
	"testing"

	"gantry/archive/confined"
	"gantry/snapshot"
	"gantry/snapshot/layers"
	"gantry/snapshot/native"
	"gantry/snapshot/snapshottest"
)

func TestMain(m *testing.M) {
	confined.Main()
	os.Exit(m.Run())
}

func TestContract(t *testing.T) {
	snapshottest.Run(t, func(t *testing.T, root string) snapshot.Snapshotter {
		s, err := native.Open(root, layers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}
