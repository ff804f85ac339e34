package docker

import (
	"context"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"
	api "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/opencontainers/go-digest"

	"gantry/image"
)

// imageUsers lists the containers of an image.
func (s *Server) imageUsers(id digest.Digest) []image.ContainerUse {
	return s.engine.Containers.Users(id)
}

// countContainers fills the numbers of containers in.
func (s *Server) countContainers(info *system.Info) {
	for _, c := range s.engine.Containers.All() {
		info.Containers++
		switch state := container.ContainerState(c.Record().State); state {
		case container.StateRunning, container.StateRestarting:
			info.ContainersRunning++
		case container.StatePaused:
			info.ContainersPaused++
		default:
			info.ContainersStopped++
		}
	}
}

// containerSizes lists all containers with their sizes.
func (s *Server) containerSizes(ctx context.Context) ([]container.Summary, error) {
	var out []container.Summary
	for _, c := range s.engine.Containers.All() {
		rec := c.Record()
		sum := rec.Summary(time.Now())
		in, err := s.engine.Containers.Inspect(ctx, rec.ID, true)
		if err != nil {
			continue // removed meanwhile
		}
		sum.SizeRw, sum.SizeRootFs = *in.SizeRw, *in.SizeRootFs
		out = append(out, sum)
	}
	return out, nil
}

func (s *Server) connect(r *http.Request, req api.ConnectRequest) error {
	return s.engine.Containers.Connect(r.Context(), req.Container, r.PathValue("id"), req.EndpointConfig)
}

func (s *Server) disconnect(r *http.Request, req api.DisconnectRequest) error {
	return s.engine.Containers.Disconnect(r.Context(), req.Container, r.PathValue("id"), req.Force)
}
