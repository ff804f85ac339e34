package docker

import (
	"net/http"
	"strings"

	"gantry/errdefs"

	buildtypes "github.com/moby/moby/api/types/build"
)

// absentRoutes registers docker's endpoints that are not served, so that their callers are told so and why. They come
// last: a route that serves wins.
func (s *Server) absentRoutes(add func(method, pattern string, h Handler)) {
	say := func(sentence string) Handler {
		return func(http.ResponseWriter, *http.Request) error {
			return errdefs.New(errdefs.NotImplemented, "%s", sentence)
		}
	}
	// The cache of builds is images, which go with `docker image prune`; `docker system prune` empties BuildKit's, too.
	add("POST", "/build/prune", func(w http.ResponseWriter, _ *http.Request) error {
		return WriteJSON(w, http.StatusOK, buildtypes.CachePruneReport{})
	})
	const (
		buildkit   = "BuildKit is not supported yet by this daemon: build with DOCKER_BUILDKIT=0"
		swarm      = "swarm mode is not supported by this daemon"
		plugins    = "plugins are not supported by this daemon"
		checkpoint = "checkpoints are not supported yet by this daemon"
	)
	for _, e := range []struct {
		methods, pattern, sentence string
	}{
		{"POST", "/build/cancel", buildkit},
		{"POST", "/session", buildkit},
		{"POST", "/grpc", buildkit},
		{"GET", "/containers/{name}/checkpoints", checkpoint},
		{"POST", "/containers/{name}/checkpoints", checkpoint},
		{"DELETE", "/containers/{name}/checkpoints/{checkpoint}", checkpoint},
		{"GET", "/images/{name...}/attestations", "image attestations are not supported yet by this daemon"},
		{"GET", "/plugins", plugins},
		{"GET POST DELETE", "/plugins/{rest...}", plugins},
		{"GET POST", "/swarm", swarm},
		{"GET POST", "/swarm/{rest...}", swarm},
		{"GET", "/nodes", swarm},
		{"GET POST DELETE", "/nodes/{rest...}", swarm},
		{"GET", "/services", swarm},
		{"GET POST DELETE", "/services/{rest...}", swarm},
		{"GET", "/tasks", swarm},
		{"GET", "/tasks/{rest...}", swarm},
		{"GET", "/secrets", swarm},
		{"GET POST DELETE", "/secrets/{rest...}", swarm},
		{"GET", "/configs", swarm},
		{"GET POST DELETE", "/configs/{rest...}", swarm},
	} {
		for method := range strings.FieldsSeq(e.methods) {
			add(method, e.pattern, say(e.sentence))
		}
	}
}
