package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/opencontainers/go-digest"

	"gantry/errdefs"
	store "gantry/image"
)

// diskUsage is `docker system df`. All sizes are of blocks on disk, as du counts them, unlike those of the lists of images and containers, which are of files. Versions before 1.52 get flat lists; 1.52 and later one summary per kind of object,
// with the lists in it on request (verbose), and beside it the flat lists unless verbose says that the client knows better.
func (s *Server) diskUsage(w http.ResponseWriter, r *http.Request) error {
	version := VersionOf(r)
	want := map[string]bool{"container": true, "image": true, "volume": true, "build-cache": true}
	if kinds, ok := r.Form["type"]; ok && version >= 42 {
		chosen := map[string]bool{}
		for _, kind := range kinds {
			if !want[kind] {
				return errdefs.New(errdefs.InvalidParameter, "unknown object type: %s", kind)
			}
			chosen[kind] = true
		}
		want = chosen
	}
	u := usage{verbose: version >= 52 && Bool(r, "verbose")}
	ctx := r.Context()
	var disk store.DiskUsage
	if want["image"] || want["container"] {
		var err error
		if disk, err = s.engine.Images.DiskUsage(ctx); err != nil {
			return err
		}
	}
	if want["image"] {
		images, err := s.summaries(ctx, summaryOptions{filters: Filters{}, all: true})
		if err != nil {
			return err
		}
		for i := range images {
			one := disk.Images[digest.Digest(images[i].ID)]
			images[i].Size, images[i].SharedSize = one.Size, one.Shared
		}
		u.images, u.layers = nonNil(images), disk.Total
	}
	if want["container"] {
		containers, err := s.containerSizes(ctx)
		if err != nil {
			return err
		}
		for i := range containers {
			containers[i].SizeRw = disk.Snapshots[containers[i].ID]
		}
		u.containers = nonNil(containers)
	}
	if want["volume"] {
		volumes, err := s.volumeSizes(ctx)
		if err != nil {
			return err
		}
		u.volumes = nonNil(volumes)
	}
	if want["build-cache"] {
		u.cache = []build.CacheRecord{}
	}
	return WriteJSON(w, http.StatusOK, usageFor(version, u))
}

// usage is what objects take up; a nil list was not asked for.
type usage struct {
	verbose    bool
	layers     int64 // bytes of all layers and blobs
	images     []image.Summary
	containers []container.Summary
	volumes    []volume.Volume
	cache      []build.CacheRecord
}

// flatUsage is the response before 1.52.
type flatUsage struct {
	LayersSize int64
	Images     any                 `json:"Images,omitempty"`
	Containers []container.Summary `json:"Containers,omitzero"`
	Volumes    []volume.Volume     `json:"Volumes,omitzero"`
	BuildCache []build.CacheRecord `json:"BuildCache,omitzero"`
	// BuilderSize was dropped in 1.42.
	BuilderSize *int64 `json:"BuilderSize,omitempty"`
}

// summary adds the lists up, in the shape of 1.52.
func (u *usage) summary() system.DiskUsage {
	var d system.DiskUsage
	if u.images != nil {
		d.ImageUsage = &image.DiskUsage{TotalCount: int64(len(u.images)), TotalSize: u.layers}
		var used int64
		for _, i := range u.images {
			if i.Containers > 0 {
				d.ImageUsage.ActiveCount++
				used += i.Size - max(i.SharedSize, 0)
			}
		}
		d.ImageUsage.Reclaimable = u.layers - used
		if u.verbose {
			d.ImageUsage.Items = u.images
		}
	}
	if u.containers != nil {
		d.ContainerUsage = &container.DiskUsage{TotalCount: int64(len(u.containers))}
		for _, c := range u.containers {
			d.ContainerUsage.TotalSize += c.SizeRw
			switch c.State {
			case container.StateRunning, container.StatePaused, container.StateRestarting:
				d.ContainerUsage.ActiveCount++
			default:
				d.ContainerUsage.Reclaimable += c.SizeRw
			}
		}
		if u.verbose {
			d.ContainerUsage.Items = u.containers
		}
	}
	if u.volumes != nil {
		d.VolumeUsage = &volume.DiskUsage{TotalCount: int64(len(u.volumes))}
		for _, v := range u.volumes {
			if v.UsageData.Size > 0 {
				d.VolumeUsage.TotalSize += v.UsageData.Size
			}
			if v.UsageData.RefCount > 0 {
				d.VolumeUsage.ActiveCount++
			} else if v.UsageData.Size > 0 {
				d.VolumeUsage.Reclaimable += v.UsageData.Size
			}
		}
		if u.verbose {
			d.VolumeUsage.Items = u.volumes
		}
	}
	if u.cache != nil {
		d.BuildCacheUsage = &build.DiskUsage{}
	}
	return d
}
