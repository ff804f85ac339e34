package docker

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/container"
	api "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/opencontainers/go-digest"

	"gantry/errdefs"
	"gantry/image"
)

// imageUsers lists the containers of an image.
func (s *Server) imageUsers(digest.Digest) []image.ContainerUse { return nil }

// countContainers fills the numbers of containers in.
func (s *Server) countContainers(*system.Info) {}

// containerSizes lists all containers with their sizes.
func (s *Server) containerSizes(context.Context) ([]container.Summary, error) { return nil, nil }

func (s *Server) connect(*http.Request, api.ConnectRequest) error {
	return errdefs.New(errdefs.NotImplemented, "not there yet")
}

func (s *Server) disconnect(*http.Request, api.DisconnectRequest) error {
	return errdefs.New(errdefs.NotImplemented, "not there yet")
}
