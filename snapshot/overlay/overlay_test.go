package overlay_test

import (
	"testing"

	"gantry/snapshot"
	"gantry/snapshot/overlay"
	"gantry/snapshot/snapshottest"
)

func TestContract(t *testing.T) {
	snapshottest.Run(t, func(t *testing.T, root string) snapshot.Snapshotter {
		s, err := overlay.Open(root)
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
