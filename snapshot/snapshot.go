// Package snapshot is the contract of what keeps unpacked layers and the writable file systems on top of them.
package snapshot

import (
	"context"
	"io"
	"os"

	"gantry/archive"
	"gantry/fsck"

	"github.com/opencontainers/go-digest"
)

// Staged is a layer that is unpacked but not yet named: Commit makes it one, Discard drops it, and a crash drops it too.
type Staged struct {
	DiffID digest.Digest // of the uncompressed tar
	Size   int64         // bytes of all files in it
	Path   string        // where it lies meanwhile; the snapshotter's own affair
	Key    digest.Digest // DiffID, or the chain ID of a layer that needed the ones beneath it
}

// Layer is an unpacked, read-only layer.
type Layer struct {
	Key    digest.Digest `json:"key"`    // DiffID, or the chain ID of a layer that needed the ones beneath it
	DiffID digest.Digest `json:"diffID"` // of the uncompressed tar
	Size   int64         `json:"size"`   // bytes of all files in it
}

// DiskUsage is bytes of blocks, as du counts them.
type DiskUsage struct {
	Total     int64                   // of all layers and what belongs to none
	Layers    map[digest.Digest]int64 // by key
	Snapshots map[string]int64        // by key
}

// Snapshotter keeps unpacked layers and snapshots. Keys of snapshots are chosen by the caller ([a-zA-Z0-9_.-]+). All methods
// may be called concurrently. Layers are named by their diffIDs, bottom first.
type Snapshotter interface {
	// Name is Docker's word for it: "overlay2", "vfs".
	Name() string

	// Prepare makes a snapshot on top of the layers, of which there may be none. It is not durable. Errors: NotFound when
	// a layer is missing, Conflict when the key is taken.
	Prepare(ctx context.Context, key string, layers []digest.Digest) error
	// Mount returns a mount of the snapshot that is attached nowhere: it lives as long as the descriptor, or what it is
	// moved to. At most one writable mount of a snapshot may be used at a time. Errors: NotFound.
	Mount(ctx context.Context, key string, readOnly bool) (*os.File, error)
	// MountVolatile is a writable Mount of a snapshot whose contents may be lost in a power cut, as those of a container that is removed when it ends:
	// nothing that is written is ever synced, not even when a process in it asks for that.
	MountVolatile(ctx context.Context, key string) (*os.File, error)
	// Remove deletes a snapshot; there need not be one. Its files may go a little later.
	Remove(ctx context.Context, key string) error
	// List returns the keys of all snapshots, so that the owner of the records can remove those without one.
	List(ctx context.Context) ([]string, error)
	// Usage returns the bytes and the number of files in the snapshot itself, without its layers.
	Usage(ctx context.Context, key string) (bytes, inodes int64, err error)
	// DiskUsage returns how many bytes of the disk everything takes up.
	DiskUsage(ctx context.Context) (DiskUsage, error)
	// Changes lists what differs from the layers, sorted by path.
	Changes(ctx context.Context, key string) ([]archive.Change, error)
	// Diff writes what differs from the layers as a layer tar.
	Diff(ctx context.Context, key string, w io.Writer) error
	// Paths returns the folders of the snapshot for `docker inspect`, under Docker's names (LowerDir, UpperDir, WorkDir, MergedDir).
	Paths(ctx context.Context, key string) (map[string]string, error)

	// Stage unpacks a layer tar, compressed or not, beside the layers; parents are those beneath it. Errors: InvalidParameter for a malformed or hostile layer and
	// for one that exceeds a limit, NotFound for one that links to what no parent has, Exhausted when the disk is full.
	Stage(ctx context.Context, r io.Reader, parents []digest.Digest) (*Staged, error)
	// Commit makes staged layers durable and visible under their diffIDs, all with one sync. A layer that is there already is left alone.
	Commit(ctx context.Context, staged []*Staged) error
	// Discard drops a staged layer.
	Discard(staged *Staged) error
	// Verify unpacks a layer anew and compares it with the one that is here. What it returns, with what differs, is to take the place of that by Replace; nil: they
	// are the same. Errors: those of Stage; InvalidParameter when r is another layer.
	Verify(ctx context.Context, r io.Reader, layer Layer, parents []digest.Digest) (anew *Staged, differs string, err error)
	// Replace moves the layer that is here aside, where Check finds it, and commits the staged one in its place.
	Replace(ctx context.Context, staged *Staged) error
	// Find returns the layers for an image's diffIDs. Errors: NotFound when one is missing.
	Find(ctx context.Context, layers []digest.Digest) ([]Layer, error)
	// Layers lists all layers.
	Layers(ctx context.Context) ([]Layer, error)
	// Open returns a detached mount of a layer as it lies, for reading only. What is removed meanwhile may go from it. Errors: NotFound.
	Open(ctx context.Context, key digest.Digest) (*os.File, error)
	// InUse reports whether a snapshot stands on a layer.
	InUse(key digest.Digest) bool
	// RemoveLayer deletes a layer. Errors: Conflict while a snapshot stands on it.
	RemoveLayer(ctx context.Context, key digest.Digest) error
	// Limits are those of layers that are unpacked from now on.
	Limits() archive.Limits
	// SetLimits replaces the limits of layers that are unpacked from now on.
	SetLimits(limits archive.Limits)
	// Sweep deletes what was removed before and could not be deleted then.
	Sweep(ctx context.Context) error
	// Check lists what is damaged or left over on disk.
	Check(ctx context.Context) ([]fsck.Difference, error)
	// Close waits for files that are still being deleted. Mounts stay.
	Close() error
}
