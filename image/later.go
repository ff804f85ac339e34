package image

import (
	"context"
	"io"

	"gantry/errdefs"
	"gantry/fsck"
	"gantry/registry"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func missing(verb string) error {
	return errdefs.New(errdefs.NotImplemented, "%s: not implemented", verb)
}

func change(config *dockerspec.DockerOCIImageConfig, instructions []string) error {
	if len(instructions) > 0 {
		return missing("change")
	}
	return nil
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

// Save writes images as an archive that is both a docker-archive and an OCI layout.
func (s *Service) Save(ctx context.Context, refs []string, w io.Writer, o SaveOptions) error {
	return missing("save image")
}

// Commit makes an image from a snapshot.
func (s *Service) Commit(ctx context.Context, o CommitOptions) (*Image, error) {
	return nil, missing("commit container")
}

// Prune removes images that nothing uses.
func (s *Service) Prune(ctx context.Context, o PruneOptions) (PruneReport, error) {
	return PruneReport{}, missing("prune images")
}

// Check lists where records and disk disagree.
func (s *Service) Check(ctx context.Context) ([]fsck.Difference, error) {
	return s.o.Snapshots.Check(ctx)
}
