// Package graph solves builds: it takes the steps of a Dockerfile in order, finds each in what earlier builds have made, or does it, and keeps the image that comes of it. An image knows its parent
// and the digest of the step that made it, with all that the step depends on; that is the whole cache. Nothing else outlives a step: files are copied in a snapshot, and programs run in a container,
// that the next start of the daemon removes if a kill leaves them.
package graph

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"gantry/archive"
	"gantry/build/tree"
	"gantry/image"
	"gantry/registry"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Containers runs the programs of RUN.
type Containers interface {
	CreateStep(ctx context.Context, on *image.Image, c *container.Config, h *container.HostConfig) (id string, err error)
	RunStep(ctx context.Context, id string, output func(stderr bool, data []byte)) (code int, err error)
	KeepStep(id string) error
	RemoveStep(ctx context.Context, id string) error
	StepOwner(root *os.File, name string) (archive.Owner, error)
}

// Options is what a Service is made of.
type Options struct {
	Root       string // data root; contexts lie in tmp, without a name
	Images     *image.Service
	Containers Containers
	Limits     archive.Limits // of contexts
	Log        *slog.Logger   // nil: none
}

// Service builds images. Its methods may be called concurrently.
type Service struct {
	images     *image.Service
	containers Containers
	tmp        string
	log        *slog.Logger

	mu     sync.Mutex // guards limits
	limits archive.Limits
}

// New returns a service.
func New(o Options) *Service {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{images: o.Images, containers: o.Containers, tmp: filepath.Join(o.Root, "tmp"), limits: o.Limits, log: o.Log}
}

// SetLimits replaces the limits of contexts that are read from now on.
func (s *Service) SetLimits(l archive.Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l
}

func (s *Service) currentLimits() archive.Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits
}

// Request is a build.
type Request struct {
	Context    io.Reader // tar, compressed or not; read to its end before anything is said
	Dockerfile string    // its path in the context; empty: Dockerfile
	Args       map[string]*string
	Labels     map[string]string
	Target     string   // stage to end with; empty: the last
	Notes      []string // to be said first
	Tags       []string

	NoCache bool
	Pull    bool                         // even if the image is here
	Keep    bool                         // containers of RUN that went well
	KeepBad bool                         // the container of a RUN that failed
	Quiet   bool                         // say nothing but the image's ID, unless it fails
	Host    func() *container.HostConfig // of the containers of RUN; each gets its own
	Auth    func(image string) registry.Auth
	Output  Output

	Platform *ocispec.Platform // nil: the host's
}

// Output takes what a build says. Its functions are called one at a time.
type Output struct {
	Text  func(text string)
	Pull  func(image.Progress)
	Image func(id digest.Digest) // what a stage has come to
}

// readContext takes the context in.
func (s *Service) readContext(ctx context.Context, r io.Reader) (*tree.Tree, error) {
	return tree.Read(ctx, r, s.currentLimits(), s.tmp)
}
