package engine

import (
	"context"
	"fmt"

	"gantry/fsck"
)

// Check collects what every service finds to differ between its records and the kernel or disk.
func (e *Engine) Check(ctx context.Context) ([]fsck.Difference, error) {
	var found []fsck.Difference
	problems, err := e.DB.Check(ctx)
	if err != nil {
		return nil, fmt.Errorf("check database: %w", err)
	}
	for _, p := range problems {
		found = append(found, fsck.Difference{Area: "database", Object: "gantry.db", Problem: p})
	}
	for _, file := range e.DB.Damaged() {
		found = append(found, fsck.Difference{
			Area: "database", Object: file, Problem: "a damaged database was moved aside here: a repair removes it, and what can still be read of it",
			Repair: func(context.Context) error { return e.DB.DropDamaged(file) },
		})
	}
	for _, part := range []struct {
		name  string
		check func(context.Context) ([]fsck.Difference, error)
	}{
		{"images", e.Images.Check},
		{"snapshots", e.Snapshots.Check},
		{"volumes", e.Volumes.Check},
		{"networks", e.Networks.Check},
		{"containers", e.Containers.Check},
	} {
		differences, err := part.check(ctx)
		if err != nil {
			return nil, fmt.Errorf("check %s: %w", part.name, err)
		}
		found = append(found, differences...)
	}
	return found, nil
}

// CheckLayers compares every layer of every image with its archive, which takes as long as loading all images.
func (e *Engine) CheckLayers(ctx context.Context) ([]fsck.Difference, error) {
	return e.Images.CheckLayers(ctx)
}
