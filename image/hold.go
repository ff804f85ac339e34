package image

import (
	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
)

// Hold keeps images for something that uses them and is no container, a build. Nothing of it outlives the process.
type Hold struct {
	s   *Service
	ids []digest.Digest
}

// Hold returns a hold on nothing yet.
func (s *Service) Hold() *Hold { return &Hold{s: s} }

// Keep has an image stay until Close. Error: NotFound, when it has been removed already.
func (h *Hold) Keep(i *Image) error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if h.s.images[i.ID] == nil {
		return errdefs.New(errdefs.NotFound, "No such image: %s", i.ID)
	}
	h.keep(i.ID)
	return nil
}

// keep is Keep for an image that is there. The caller holds mu.
func (h *Hold) keep(id digest.Digest) {
	if h != nil {
		h.s.held[id]++
		h.ids = append(h.ids, id)
	}
}

// Close lets all go.
func (h *Hold) Close() {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	for _, id := range h.ids {
		if h.s.held[id]--; h.s.held[id] == 0 {
			delete(h.s.held, id)
		}
	}
	h.ids = nil
}
