package cli

import (
	"context"
	"fmt"

	"github.com/docker/go-units"

	"gantry/client"
)

const dryRunHelp = "Print what would be removed and how much space that would free, and remove nothing"

// rehearsePrune prints what pruning kinds of objects would remove.
func (a *app) rehearsePrune(ctx context.Context, f client.Filters, kinds ...string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	a.configFilters(f)
	r, err := c.RehearsePrune(ctx, f, kinds...)
	if err != nil {
		return err
	}
	a.printRehearsal(r)
	return nil
}

func (a *app) printRehearsal(r client.Rehearsal) {
	fmt.Fprint(a.out, listText("Would delete containers:", r.ContainersDeleted), listText("Would delete networks:", r.NetworksDeleted),
		listText("Would delete volumes:", r.VolumesDeleted), listText("Would delete images:", deletions(r.ImagesDeleted)))
	fmt.Fprintln(a.out, "Total reclaimable space:", units.HumanSize(float64(r.SpaceReclaimed)))
}
