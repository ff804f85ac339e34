package docker

import (
	"net/http"
)

// Settings are the daemon's options that /info shows.
type Settings struct {
	Debug bool
}

// systemRoutes registers the endpoints about the engine as a whole.
func (s *Server) systemRoutes(add func(method, pattern string, h Handler)) {
	add(http.MethodGet, "/_ping", s.ping)
	add(http.MethodHead, "/_ping", s.ping)
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate")
	w.Header().Set("Pragma", "no-cache")
	w.Header().Set("Builder-Version", "1")
	w.Header().Set("Swarm", "inactive")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}
