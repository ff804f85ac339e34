package client

import (
	"context"
	"net/url"

	"github.com/moby/moby/api/types/image"
)

// Rehearsal is what a removal would remove.
type Rehearsal struct {
	ContainersDeleted, NetworksDeleted, VolumesDeleted []string
	ImagesDeleted                                      []image.DeleteResponse
	SpaceReclaimed                                     uint64 // bytes
}

// RehearsePrune tells what pruning kinds ("containers", "networks", "volumes", "images") would remove. Only gantryd does.
func (c *Client) RehearsePrune(ctx context.Context, f Filters, kinds ...string) (Rehearsal, error) {
	q := url.Values{}
	for _, kind := range kinds {
		q.Set(kind, "1")
	}
	var out Rehearsal
	if err := f.set(q); err != nil {
		return out, err
	}
	return out, c.Call(ctx, Request{Method: "GET", Path: "/gantry/prune", Query: q, Unversioned: true}, &out)
}

// RehearseRemove tells what ImageRemove would do. Only gantryd does.
func (c *Client) RehearseRemove(ctx context.Context, ref string, force, noPrune bool) (Rehearsal, error) {
	q := url.Values{"image": {ref}}
	if force {
		q.Set("force", "1")
	}
	if noPrune {
		q.Set("noprune", "1")
	}
	var out Rehearsal
	return out, c.Call(ctx, Request{Method: "GET", Path: "/gantry/images/removal", Query: q, Unversioned: true}, &out)
}
