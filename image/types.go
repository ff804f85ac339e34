package image

import (
	"time"

	"gantry/archive"
	"gantry/registry"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a local image. It is shared between callers: never change one.
type Image struct {
	ID          digest.Digest      // of RawConfig
	Config      v1.DockerOCIImage  // decoded RawConfig; Architecture, OS, Variant, Created, Author, History are in it
	RawConfig   []byte             // the exact bytes
	Manifest    ocispec.Descriptor // of the manifest that names the config and the layers' blobs
	DiffIDs     []digest.Digest    // bottom first; also what snapshot.Prepare takes
	Size        int64              // bytes of the files of all layers
	RepoTags    []string           // familiar names, sorted: "busybox:latest"
	RepoDigests []string           // familiar names, sorted: "busybox@sha256:..."
	Created     time.Time          // zero when the config does not say
	Parent      digest.Digest      // image this one was committed or built on here; empty for others
	LastTagged  time.Time
}

// Progress is one line of progress in the shape of Docker's JSON stream. Total is 0 where it is unknown; Aux, when set, goes out as
// the stream's "aux" object.
type Progress struct {
	ID      string // short layer or tag the status is about; may be empty
	Status  string
	Current int64 // bytes
	Total   int64 // bytes
	Aux     any
}

// PullOptions shapes Pull.
type PullOptions struct {
	Platform *ocispec.Platform // nil: the host's
	Auth     registry.Auth
	AllTags  bool
	// AllPlatforms brings in every platform of an index that runs on this kind of system, and what the index has beside images; the name goes to the one that Platform chooses.
	AllPlatforms bool
	Progress     func(Progress) // called from several goroutines, one at a time; nil: nobody listens
}

// PushOptions shapes Push.
type PushOptions struct {
	Auth     registry.Auth
	AllTags  bool
	Platform *ocispec.Platform // nil: the whole index that the name stands for, if all of it is at hand
	Packing  archive.Packing   // how layers are compressed, all of them; zero: as they are
	Progress func(Progress)
}

// PushResult is the aux object that ends a push.
type PushResult struct {
	Tag    string
	Digest string
	Size   int
}

// PushedInstead is the aux object that says that an image of one platform was pushed where the name stands for an index, in Docker's words.
type PushedInstead struct {
	Instead  bool               `json:"manifestPushedInsteadOfIndex"` // always
	Index    ocispec.Descriptor `json:"originalIndex"`
	Manifest ocispec.Descriptor `json:"selectedManifest"`
}

// ContainerUse is a container that uses an image; one that RUN has yet to make for a build has no ID.
type ContainerUse struct {
	ID      string
	Running bool
}

// RemoveOptions shapes Remove.
type RemoveOptions struct {
	Force   bool
	NoPrune bool                                  // keep untagged parents
	InUse   func(id digest.Digest) []ContainerUse // nil: no containers
}

// Removed is one line of what Remove did; exactly one field is set.
type Removed struct {
	Untagged string
	Deleted  string
}

// LoadOptions shapes Load.
type LoadOptions struct {
	Platforms []ocispec.Platform // none: all that the archive has
	Progress  func(Progress)
}

// Loaded is one image that Load brought in.
type Loaded struct {
	ID   digest.Digest
	Name string // familiar name; empty when the archive gives none ("Loaded image ID: ...")
}

// SaveOptions shapes Save.
type SaveOptions struct {
	Platforms []ocispec.Platform // none: all that are here
}

// ImportOptions shapes Import.
type ImportOptions struct {
	Repo, Tag string // both empty: the image has no name
	Config    v1.DockerOCIImageConfig
	Message   string
	Platform  *ocispec.Platform // nil: the host's
	Source    string            // what the history says it came from; for the message "Imported from ..."
}

// CommitOptions shapes Commit.
type CommitOptions struct {
	SnapshotKey string
	Parent      *Image                  // image the container was made from; nil for none
	Config      v1.DockerOCIImageConfig // the container's configuration
	Author      string
	Comment     string
	CreatedBy   string // command line for the history
	ContainerID string
	Repo, Tag   string
}

// HistoryEntry is one step of an image's making, newest first.
type HistoryEntry struct {
	ID        string // image ID or "<missing>"
	Created   time.Time
	CreatedBy string
	Tags      []string
	Size      int64 // bytes
	Comment   string
}

// PruneOptions shapes Prune.
type PruneOptions struct {
	All    bool                                  // also tagged images that no container uses; otherwise only dangling ones
	InUse  func(id digest.Digest) []ContainerUse // nil: no containers
	Filter func(*Image) bool                     // nil: all
}

// PruneReport is what Prune did.
type PruneReport struct {
	Removed        []Removed
	SpaceReclaimed int64 // bytes
}

// DiskUsage is what images and snapshots take up on disk, for `docker system df`: bytes of blocks, as du counts them.
type DiskUsage struct {
	Total     int64 // of all blobs and layers, each counted once, and of what belongs to no image
	Images    map[digest.Digest]ImageUsage
	Snapshots map[string]int64 // by key
}

// ImageUsage is what one image takes up, its unpacked layers and the blobs that are kept beside them.
type ImageUsage struct {
	Size   int64
	Shared int64 // the part that other images have too
}
