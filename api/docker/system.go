package docker

import (
	"encoding/json"
	"net/http"
	"runtime"
	"strconv"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"gantry/errdefs"
)

// systemRoutes registers the endpoints about the engine as a whole.
func (s *Server) systemRoutes(add func(method, pattern string, h Handler)) {
	add(http.MethodGet, "/_ping", s.ping)
	add(http.MethodHead, "/_ping", s.ping)
	add(http.MethodGet, "/version", s.version)
	add(http.MethodGet, "/info", s.info)
	add(http.MethodGet, "/events", s.events)
	add(http.MethodGet, "/system/df", s.diskUsage)
	add(http.MethodPost, "/auth", s.login)
	add(http.MethodGet, "/gantry/fsck", s.fsck)
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	header := w.Header()
	header.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	header.Set("Pragma", "no-cache")
	header.Set("Builder-Version", "1") // BuildKit is not served
	header.Set("Swarm", "inactive")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		header.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) error {
	settings := s.options.Settings()
	kernel := kernelRelease()
	v := system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Gantry"},
		Version:       s.options.ServerVersion,
		APIVersion:    MaxVersion.String(),
		MinAPIVersion: s.options.MinVersion.String(),
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		GitCommit:     s.options.GitCommit,
		GoVersion:     runtime.Version(),
		KernelVersion: kernel,
		Experimental:  settings.Experimental,
		BuildTime:     s.options.BuildTime,
	}
	v.Components = []system.ComponentVersion{{
		Name: "Engine", Version: v.Version,
		Details: map[string]string{
			"ApiVersion":    v.APIVersion,
			"Arch":          v.Arch,
			"BuildTime":     v.BuildTime,
			"Experimental":  strconv.FormatBool(v.Experimental),
			"GitCommit":     v.GitCommit,
			"GoVersion":     v.GoVersion,
			"KernelVersion": kernel,
			"MinAPIVersion": v.MinAPIVersion,
			"Os":            v.Os,
		},
	}}
	return WriteJSON(w, http.StatusOK, v)
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	var request registry.AuthConfig
	body := http.MaxBytesReader(w, r.Body, maxBody)
	if err := json.NewDecoder(body).Decode(&request); err != nil {
		return errdefs.New(errdefs.InvalidParameter, "invalid JSON: %w", err)
	}
	status, token, err := s.engine.Images.Login(r.Context(), registryAuth(request))
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, registry.AuthResponse{Status: status, IdentityToken: token})
}
