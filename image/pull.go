package image

import (
	"context"

	"gantry/errdefs"
	"gantry/registry"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func missing(verb string) error {
	return errdefs.New(errdefs.NotImplemented, "%s: not implemented", verb)
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
