package docker

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	api "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/errdefs"
	"gantry/image"
)

// imageRoutes registers the endpoints of images and of their registries.
func (s *Server) imageRoutes(add func(method, pattern string, h Handler)) {
	add(http.MethodGet, "/images/json", s.imageList)
	add(http.MethodGet, "/images/search", s.imageSearch)
	add(http.MethodGet, "/images/get", s.imageSave)
	add(http.MethodGet, "/images/{name...}/get", s.imageSave)
	add(http.MethodGet, "/images/{name...}/history", s.imageHistory)
	add(http.MethodGet, "/images/{name...}/json", s.imageInspect)
	add(http.MethodPost, "/images/load", s.imageLoad)
	add(http.MethodPost, "/images/create", s.imageCreate)
	add(http.MethodPost, "/images/prune", s.imagePrune)
	add(http.MethodPost, "/images/{name...}/push", s.imagePush)
	add(http.MethodPost, "/images/{name...}/tag", s.imageTag)
	add(http.MethodDelete, "/images/{name...}", s.imageRemove)
	add(http.MethodGet, "/distribution/{name...}/json", s.distributionInspect)
}

func (s *Server) imageList(w http.ResponseWriter, r *http.Request) error {
	version := VersionOf(r)
	filters, err := FiltersOf(r, "dangling", "label", "before", "since", "reference", "until")
	if err != nil {
		return err
	}
	if pattern := r.Form.Get("filter"); version < 25 && pattern != "" && !filters.Has("reference") {
		filters["reference"] = map[string]bool{pattern: true}
	}
	list, err := s.summaries(r.Context(), summaryOptions{
		filters: filters, all: Bool(r, "all"), shared: version >= 42 && Bool(r, "shared-size"),
	})
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, imagesFor(version, list))
}

type summaryOptions struct {
	filters Filters
	all     bool // also nameless images that others were built on
	shared  bool // find out what images share
}

// summaries lists images as docker does, newest first.
func (s *Server) summaries(ctx context.Context, o summaryOptions) ([]api.Summary, error) {
	keep, err := s.imageTimes(ctx, o.filters)
	if err != nil {
		return nil, err
	}
	dangling, err := o.filters.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	images, err := s.engine.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	shared := map[digest.Digest]int64{}
	if o.shared {
		if shared, err = s.engine.Images.SharedSizes(ctx); err != nil {
			return nil, err
		}
	}
	hasChild := map[digest.Digest]bool{}
	for _, i := range images {
		hasChild[i.Parent] = true
	}
	list := []api.Summary{}
	for _, i := range images {
		if !keep(i) || !o.filters.Labels("label", i.Config.Config.Labels) {
			continue
		}
		summary := api.Summary{
			ID: i.ID.String(), ParentID: i.Parent.String(), Created: created(i), Size: i.Size, SharedSize: -1,
			Labels: i.Config.Config.Labels, Containers: int64(len(s.imageUsers(i.ID))),
			RepoTags: slices.Clone(i.RepoTags), RepoDigests: slices.Clone(i.RepoDigests), Descriptor: descriptor(i),
		}
		if o.filters.Has("reference") {
			if summary.RepoTags, err = matching(o.filters, summary.RepoTags); err != nil {
				return nil, err
			}
			if summary.RepoDigests, err = matching(o.filters, summary.RepoDigests); err != nil {
				return nil, err
			}
		}
		nameless := len(summary.RepoTags) == 0
		switch {
		case nameless && len(summary.RepoDigests) == 0 && (o.filters.Has("reference") || !o.all && hasChild[i.ID]),
			o.filters.Has("dangling") && dangling != nameless,
			dangling && hasChild[i.ID]:
			continue
		}
		if o.shared {
			summary.SharedSize = shared[i.ID]
		}
		list = append(list, summary)
	}
	slices.SortStableFunc(list, func(a, b api.Summary) int { return int(b.Created - a.Created) })
	return list, nil
}

// imageTimes returns the condition of the filters before, since and until.
func (s *Server) imageTimes(ctx context.Context, filters Filters) (func(*image.Image) bool, error) {
	var before, since time.Time
	for _, ref := range filters.Get("before") {
		i, err := s.engine.Images.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		if before.IsZero() || i.Created.Before(before) {
			before = i.Created
		}
	}
	for _, text := range filters.Get("until") {
		until, err := ParseTime(text, time.Now())
		if err != nil {
			return nil, err
		}
		if before.IsZero() || until.Before(before) {
			before = until
		}
	}
	for _, ref := range filters.Get("since") {
		i, err := s.engine.Images.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		if i.Created.After(since) {
			since = i.Created
		}
	}
	return func(i *image.Image) bool {
		return (before.IsZero() || i.Created.Before(before)) && (since.IsZero() || i.Created.After(since))
	}, nil
}

// matching returns the names that one of the patterns of the filter "reference" matches.
func matching(filters Filters, names []string) ([]string, error) {
	var found []string
	for _, name := range names {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			continue
		}
		for _, pattern := range filters.Get("reference") {
			matched, err := reference.FamiliarMatch(pattern, ref)
			if err != nil {
				return nil, errdefs.New(errdefs.InvalidParameter, "invalid filter 'reference=%s': %w", pattern, err)
			}
			if matched {
				found = append(found, name)
				break
			}
		}
	}
	return found, nil
}

func created(i *image.Image) int64 {
	if i.Created.IsZero() {
		return 0
	}
	return i.Created.Unix()
}

// descriptor is what names the image in a registry; nil where none is known.
func descriptor(i *image.Image) *ocispec.Descriptor {
	if i.Manifest.Digest == "" {
		return nil
	}
	d := i.Manifest
	return &d
}

// imageOf finds the image that a request names, for the platform that it asks for if its API version knows the parameter.
func (s *Server) imageOf(r *http.Request, since Version) (*image.Image, error) {
	name := r.PathValue("name")
	i, err := s.engine.Images.Get(r.Context(), name)
	if err != nil || VersionOf(r) < since || r.Form.Get("platform") == "" {
		return i, err
	}
	p, err := decodePlatform(r.Form.Get("platform"))
	if err != nil {
		return nil, err
	}
	if p.OS != i.Config.OS || p.Architecture != i.Config.Architecture || p.Variant != "" && p.Variant != i.Config.Variant {
		wanted := strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
		return nil, errdefs.New(errdefs.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", name, wanted)
	}
	return i, nil
}

func (s *Server) imageInspect(w http.ResponseWriter, r *http.Request) error {
	if VersionOf(r) >= 49 && r.Form.Get("platform") != "" && Bool(r, "manifests") {
		return errdefs.New(errdefs.InvalidParameter, "conflicting options: manifests and platform options cannot both be set")
	}
	i, err := s.imageOf(r, 49)
	if err != nil {
		return err
	}
	inspect := &api.InspectResponse{
		ID: i.ID.String(), RepoTags: slices.Clone(i.RepoTags), RepoDigests: slices.Clone(i.RepoDigests),
		Comment: lastComment(i), Author: i.Config.Author, Config: &i.Config.Config,
		Architecture: i.Config.Architecture, Variant: i.Config.Variant, Os: i.Config.OS, OsVersion: i.Config.OSVersion,
		Size:        i.Size,
		GraphDriver: &storage.DriverData{Name: s.engine.Snapshots.Name(), Data: map[string]string{}},
		RootFS:      api.RootFS{Type: "layers"},
		Metadata:    api.Metadata{LastTagTime: i.LastTagged},
		Descriptor:  descriptor(i),
	}
	if !i.Created.IsZero() {
		inspect.Created = i.Created.Format(time.RFC3339Nano)
	}
	for _, d := range i.DiffIDs {
		inspect.RootFS.Layers = append(inspect.RootFS.Layers, d.String())
	}
	return WriteJSON(w, http.StatusOK, imageFor(VersionOf(r), inspect, i.Parent.String()))
}

// lastComment is the image's comment: docker keeps it in the newest entry of the history.
func lastComment(i *image.Image) string {
	if n := len(i.Config.History); n > 0 {
		return i.Config.History[n-1].Comment
	}
	return ""
}

func (s *Server) imageHistory(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.imageOf(r, 48); err != nil {
		return err
	}
	entries, err := s.engine.Images.History(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	list := make([]api.HistoryResponseItem, len(entries))
	for i, e := range entries {
		list[i] = api.HistoryResponseItem{ID: e.ID, CreatedBy: e.CreatedBy, Tags: e.Tags, Size: e.Size, Comment: e.Comment}
		if !e.Created.IsZero() {
			list[i].Created = e.Created.Unix()
		}
	}
	return WriteJSON(w, http.StatusOK, list)
}

func (s *Server) imageTag(w http.ResponseWriter, r *http.Request) error {
	target, err := tagReference(r.Form.Get("repo"), r.Form.Get("tag"))
	if err != nil {
		return err
	}
	if target == nil {
		return errdefs.New(errdefs.InvalidParameter, "invalid reference format: the repository name is empty")
	}
	if reference.FamiliarName(target) == string(digest.Canonical) {
		return errdefs.New(errdefs.InvalidParameter, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	if err := s.engine.Images.Tag(r.Context(), r.PathValue("name"), target.String()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// tagReference is the name of a repository with its tag, "latest" by default; nil for an empty repository.
func tagReference(repo, tag string) (reference.NamedTagged, error) {
	if repo == "" {
		return nil, nil
	}
	ref, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return nil, errdefs.With(errdefs.InvalidParameter, err)
	}
	if _, ok := ref.(reference.Digested); ok {
		return nil, errdefs.New(errdefs.InvalidParameter, "cannot import digest reference")
	}
	if tag != "" {
		tagged, err := reference.WithTag(ref, tag)
		return tagged, errdefs.With(errdefs.InvalidParameter, err)
	}
	tagged, ok := reference.TagNameOnly(ref).(reference.NamedTagged)
	if !ok {
		return nil, errdefs.New(errdefs.InvalidParameter, "unexpected reference: %q", ref.String())
	}
	return tagged, nil
}

func (s *Server) imageRemove(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if strings.TrimSpace(name) == "" {
		return errdefs.New(errdefs.InvalidParameter, "image name cannot be blank")
	}
	removed, err := s.engine.Images.Remove(r.Context(), name, image.RemoveOptions{
		Force: Bool(r, "force"), NoPrune: Bool(r, "noprune"), InUse: s.imageUsers,
	})
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, removals(removed))
}

func removals(removed []image.Removed) []api.DeleteResponse {
	list := make([]api.DeleteResponse, len(removed))
	for i, d := range removed {
		list[i] = api.DeleteResponse{Untagged: d.Untagged, Deleted: d.Deleted}
	}
	return list
}

func (s *Server) imagePrune(w http.ResponseWriter, r *http.Request) error {
	filters, err := FiltersOf(r, "dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	options, err := s.imagesToPrune(filters)
	if err != nil {
		return err
	}
	report, err := s.engine.Images.Prune(r.Context(), options)
	if err != nil {
		return err
	}
	var deleted []api.DeleteResponse // null when there is nothing, as docker answers
	if len(report.Removed) > 0 {
		deleted = removals(report.Removed)
	}
	return WriteJSON(w, http.StatusOK, struct {
		ImagesDeleted  []api.DeleteResponse
		SpaceReclaimed int64
	}{deleted, report.SpaceReclaimed})
}

func (s *Server) imagesToPrune(f Filters) (image.PruneOptions, error) {
	dangling, err := f.Bool("dangling", true)
	if err != nil {
		return image.PruneOptions{}, err
	}
	until, err := untilOf(f)
	if err != nil {
		return image.PruneOptions{}, err
	}
	return image.PruneOptions{All: !dangling, InUse: s.imageUsers, Filter: func(i *image.Image) bool {
		return (until.IsZero() || !i.Created.After(until)) && f.pruneLabels(i.Config.Config.Labels)
	}}, nil
}

// pruneLabels applies the filters label and label! of docker's prune commands.
func (f Filters) pruneLabels(labels map[string]string) bool {
	return f.Labels("label", labels) && (!f.Has("label!") || !f.Labels("label!", labels))
}

func (s *Server) imageSearch(http.ResponseWriter, *http.Request) error {
	return errdefs.New(errdefs.NotImplemented, "searching Docker Hub is not supported: see https://hub.docker.com/search")
}

func (s *Server) distributionInspect(w http.ResponseWriter, r *http.Request) error {
	target, platforms, err := s.engine.Images.Distribution(r.Context(), r.PathValue("name"), authOf(r))
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, struct {
		Descriptor ocispec.Descriptor
		Platforms  []ocispec.Platform
	}{target, nonNil(platforms)})
}
