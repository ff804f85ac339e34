package docker

import (
	"context"
	"net/http"
	"time"

	api "github.com/moby/moby/api/types/volume"

	"gantry/errdefs"
	"gantry/volume"
)

// volumeRoutes registers the endpoints of volumes.
func (s *Server) volumeRoutes(add func(method, pattern string, h Handler)) {
	add(http.MethodGet, "/volumes", s.volumeList)
	add(http.MethodGet, "/volumes/{name...}", s.volumeInspect)
	add(http.MethodPost, "/volumes/create", s.volumeCreate)
	add(http.MethodPost, "/volumes/prune", s.volumePrune)
	add(http.MethodPut, "/volumes/{name...}", func(http.ResponseWriter, *http.Request) error {
		return errdefs.New(errdefs.Unavailable, "volume update only valid for cluster volumes, but swarm is unavailable")
	})
	add(http.MethodDelete, "/volumes/{name...}", s.volumeRemove)
}

// volumeJSON is a volume in docker's shape.
func volumeJSON(v *volume.Volume) api.Volume {
	return api.Volume{
		Name: v.Name, Driver: v.Driver, Mountpoint: v.Mountpoint, Scope: v.Scope,
		CreatedAt: v.Created.Format(time.RFC3339), Labels: v.Labels, Options: v.Options,
	}
}

func (s *Server) volumeList(w http.ResponseWriter, r *http.Request) error {
	filters, err := FiltersOf(r, "dangling", "driver", "label", "name")
	if err != nil {
		return err
	}
	unused, err := filters.Bool("dangling", false)
	if err != nil {
		return err
	}
	volumes, err := s.engine.Volumes.List(r.Context())
	if err != nil {
		return err
	}
	list := []api.Volume{}
	for _, v := range volumes {
		if filters.Exact("driver", v.Driver) && filters.Match("name", v.Name) && filters.Labels("label", v.Labels) &&
			(!filters.Has("dangling") || unused == (len(s.engine.Volumes.Users(v.Name)) == 0)) {
			list = append(list, volumeJSON(v))
		}
	}
	return WriteJSON(w, http.StatusOK, struct {
		Volumes  []api.Volume
		Warnings []string
	}{list, nil})
}

func (s *Server) volumeInspect(w http.ResponseWriter, r *http.Request) error {
	v, err := s.engine.Volumes.Get(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, volumeJSON(v))
}

func (s *Server) volumeCreate(w http.ResponseWriter, r *http.Request) error {
	var request api.CreateRequest
	if err := ReadJSON(w, r, &request); err != nil {
		return err
	}
	if request.ClusterVolumeSpec != nil && VersionOf(r) >= 42 {
		return errdefs.New(errdefs.Unavailable, "cluster volumes need swarm mode, which is not supported")
	}
	v, err := s.engine.Volumes.Create(r.Context(), request.Name, request.Driver, request.DriverOpts, request.Labels)
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusCreated, volumeJSON(v))
}

func (s *Server) volumeRemove(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.Volumes.Remove(r.Context(), r.PathValue("name"), Bool(r, "force")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) volumePrune(w http.ResponseWriter, r *http.Request) error {
	filters, err := FiltersOf(r, "label", "label!", "all")
	if err != nil {
		return err
	}
	match, err := volumesToPrune(filters, VersionOf(r))
	if err != nil {
		return err
	}
	deleted, reclaimed, err := s.engine.Volumes.Prune(r.Context(), match)
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, struct {
		VolumesDeleted []string
		SpaceReclaimed int64
	}{nonNil(deleted), reclaimed})
}

// volumeSizes lists volumes with what they take up; one that cannot be measured has size -1.
func (s *Server) volumeSizes(ctx context.Context) ([]api.Volume, error) {
	volumes, err := s.engine.Volumes.List(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]api.Volume, 0, len(volumes))
	for _, v := range volumes {
		j := volumeJSON(v)
		usage, err := s.engine.Volumes.Usage(ctx, v.Name)
		if err != nil {
			usage.Size = -1
		}
		j.UsageData = &api.UsageData{Size: usage.Size, RefCount: int64(usage.RefCount)}
		list = append(list, j)
	}
	return list, nil
}

func volumesToPrune(f Filters, v Version) (func(*volume.Volume) bool, error) {
	all, err := f.Bool("all", false)
	if err != nil {
		return nil, err
	}
	all = all || v < 42 // which brought the limit to anonymous volumes
	return func(v *volume.Volume) bool {
		return v.Driver == "local" && (all || v.Anonymous) && f.pruneLabels(v.Labels)
	}, nil
}
