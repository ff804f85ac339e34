package docker

import (
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"

	"gantry/image"
)

// rehearsal is what a removal would remove, in the words of docker's reports of removals.
type rehearsal struct {
	ContainersDeleted, NetworksDeleted, VolumesDeleted []string
	ImagesDeleted                                      any // a list of Untagged and Deleted
	SpaceReclaimed                                     int64
}

// rehearseRoutes registers the endpoints that tell what docker's prunes and removals would do, and do nothing. They have paths of their own: a server that does not know them
// must not take them for the real thing.
func (s *Server) rehearseRoutes(add func(method, pattern string, h Handler)) {
	add(http.MethodGet, "/gantry/prune", s.rehearsePrune)
	add(http.MethodGet, "/gantry/images/removal", s.rehearseRemoval)
}

// rehearsePrune tells what pruning ?containers=1, ?networks=1, ?volumes=1 and ?images=1, in that order, would remove; ?filters= has docker's.
func (s *Server) rehearsePrune(w http.ResponseWriter, r *http.Request) error {
	filters, err := FiltersOf(r, "dangling", "label", "label!", "until", "all")
	if err != nil {
		return err
	}
	ctx := r.Context()
	var out rehearsal
	gone := func(id string) bool { return slices.Contains(out.ContainersDeleted, id) }
	if Bool(r, "containers") {
		match, err := s.containersToPrune(ctx, filters)
		if err != nil {
			return err
		}
		out.ContainersDeleted, out.SpaceReclaimed = s.engine.Containers.RehearsePrune(ctx, match)
	}
	if Bool(r, "networks") {
		match, err := networksToPrune(filters)
		if err != nil {
			return err
		}
		out.NetworksDeleted = s.engine.Networks.RehearsePrune(match)
	}
	if Bool(r, "volumes") {
		match, err := volumesToPrune(filters, MaxVersion)
		if err != nil {
			return err
		}
		names, freed, err := s.engine.Volumes.RehearsePrune(ctx, match, gone)
		if err != nil {
			return err
		}
		out.VolumesDeleted = names
		out.SpaceReclaimed += freed
	}
	if Bool(r, "images") {
		options, err := s.imagesToPrune(filters)
		if err != nil {
			return err
		}
		options.InUse = func(id digest.Digest) []image.ContainerUse {
			return slices.DeleteFunc(s.imageUsers(id), func(u image.ContainerUse) bool { return gone(u.ID) })
		}
		report, err := s.engine.Images.RehearsePrune(ctx, options)
		if err != nil {
			return err
		}
		out.ImagesDeleted = removals(report.Removed)
		out.SpaceReclaimed += report.SpaceReclaimed
	}
	return WriteJSON(w, http.StatusOK, out)
}

// rehearseRemoval tells what the removal of ?image= would do; ?force= and ?noprune= are docker's.
func (s *Server) rehearseRemoval(w http.ResponseWriter, r *http.Request) error {
	report, err := s.engine.Images.RehearseRemove(r.Context(), r.FormValue("image"), image.RemoveOptions{Force: Bool(r, "force"), NoPrune: Bool(r, "noprune"), InUse: s.imageUsers})
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, rehearsal{ImagesDeleted: removals(report.Removed), SpaceReclaimed: report.SpaceReclaimed})
}
