// Package image is the store of images: their names, configurations, manifests and layers, and the verbs that bring them in,
// change and remove them.
package image

import (
	"context"
	"io"
	"log/slog"

	"gantry/archive"
	"gantry/db"
	"gantry/errdefs"
	"gantry/event"
	"gantry/fsck"
	"gantry/registry"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options is what a Service needs.
type Options struct {
	Root      string // data root; content/ lies beneath
	DB        *db.DB
	Events    *event.Bus
	Snapshots snapshot.Snapshotter
	Registry  registry.Config
	Downloads int // layers fetched at once per pull; 0: 3
	Uploads   int // layers sent at once per push; 0: 5
	Log       *slog.Logger
}

// Service is the store of images. Its methods may be called concurrently.
type Service struct {
	o Options
}

func missing(verb string) error {
	return errdefs.New(errdefs.NotImplemented, "%s: not implemented", verb)
}

// Open reads the records, drops what a killed process left behind, and returns the service.
func Open(o Options) (*Service, error) { return &Service{o: o}, nil }

// Close waits for nothing; operations under way fail when their context ends.
func (s *Service) Close() error { return nil }

// Get finds an image by name, name:tag, name@digest, ID or unique prefix of an ID. Errors: NotFound "No such image: x".
func (s *Service) Get(ctx context.Context, ref string) (*Image, error) {
	return nil, errdefs.New(errdefs.NotFound, "No such image: %s", ref)
}

// List returns all images, dangling ones too, newest first.
func (s *Service) List(ctx context.Context) ([]*Image, error) { return nil, nil }

// Tag gives the image src the further name dst.
func (s *Service) Tag(ctx context.Context, src, dst string) error { return missing("tag image") }

// Remove takes away a name, and the image with its last one.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) ([]Removed, error) {
	return nil, missing("remove image")
}

// Pull fetches an image from its registry.
func (s *Service) Pull(ctx context.Context, ref string, o PullOptions) (*Image, error) {
	return nil, missing("pull image")
}

// Push sends an image to the registry that its name says.
func (s *Service) Push(ctx context.Context, ref string, o PushOptions) error {
	return missing("push image")
}

// Login tries the credentials and returns Docker's word for success and an identity token, which may be empty.
func (s *Service) Login(ctx context.Context, auth registry.Auth) (status, token string, err error) {
	return "", "", missing("log in")
}

// Distribution asks the registry for the descriptor and platforms of an image.
func (s *Service) Distribution(ctx context.Context, ref string, auth registry.Auth) (ocispec.Descriptor, []ocispec.Platform, error) {
	return ocispec.Descriptor{}, nil, missing("inspect distribution")
}

// Load brings in the images of a `docker save` archive or an OCI layout, plain or compressed.
func (s *Service) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	return nil, missing("load image")
}

// Save writes images as an archive that is both a docker-archive and an OCI layout.
func (s *Service) Save(ctx context.Context, refs []string, w io.Writer, o SaveOptions) error {
	return missing("save image")
}

// Import makes an image of one layer from a tar of a file system, plain or compressed.
func (s *Service) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	return nil, missing("import image")
}

// Commit makes an image from a snapshot.
func (s *Service) Commit(ctx context.Context, o CommitOptions) (*Image, error) {
	return nil, missing("commit container")
}

// History returns how the image was made, newest step first.
func (s *Service) History(ctx context.Context, ref string) ([]HistoryEntry, error) {
	return nil, missing("history of image")
}

// Prune removes images that nothing uses.
func (s *Service) Prune(ctx context.Context, o PruneOptions) (PruneReport, error) {
	return PruneReport{}, missing("prune images")
}

// Usage returns what the images take up.
func (s *Service) Usage(ctx context.Context) (Usage, error) { return Usage{}, nil }

// Check lists where records and disk disagree.
func (s *Service) Check(ctx context.Context) ([]fsck.Difference, error) { return nil, nil }

var _ = archive.Added
var _ digest.Digest
