// Package docker serves the Docker Engine API: it translates HTTP requests to the verbs of the engine's services, and
// their results to the JSON that Docker's clients expect. It keeps no state of its own.
//
// Source of the shapes: Docker's published API types (github.com/moby/moby/api) and its API version history.
package docker

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"gantry/engine"
	"gantry/errdefs"
)

// Options are what a Server needs besides the engine.
type Options struct {
	// ServerVersion is the product's version, shown by /version, /info and the Server header.
	ServerVersion string
	// GitCommit and BuildTime are shown by /version; both may be empty.
	GitCommit, BuildTime string
	// MinVersion is the oldest API version that is served; 0 means the oldest there is.
	MinVersion Version
	// Settings are the daemon's options that /info shows. It is called per request, so that a reload is seen.
	Settings func() Settings
	// Draining ends when the daemon is about to stop: requests that only read or wait end with it, so that nobody's
	// `events` or `logs -f` holds the daemon up; those that change something go on. Nil means never.
	Draining context.Context //nolint:containedctx // it is the server's, not a request's
	// Log receives the requests (level debug) and the errors that are ours (level error).
	Log *slog.Logger
}

// Server is the API as an http.Handler. It may serve any number of listeners.
type Server struct {
	engine  *engine.Engine
	options Options
	routes  routes
	log     *slog.Logger
}

// Handler answers one request of a known method and path. The request's query is parsed (r.Form; never the body), path
// values are in r.PathValue, the API version in VersionOf(r). An error that it returns before the first byte of the
// response becomes docker's JSON error with the status of the error's kind; one returned later is only logged.
type Handler func(w http.ResponseWriter, r *http.Request) error

// New returns a server of the engine's services.
func New(e *engine.Engine, o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Settings == nil {
		o.Settings = func() Settings { return Settings{} }
	}
	o.MinVersion = max(o.MinVersion, MinVersion)
	s := &Server{engine: e, options: o, log: o.Log}
	s.systemRoutes(s.routes.add)
	s.imageRoutes(s.routes.add)
	s.buildRoutes(s.routes.add)
	s.layersRoutes(s.routes.add)
	s.rehearseRoutes(s.routes.add)
	s.volumeRoutes(s.routes.add)
	s.networkRoutes(s.routes.add)
	s.absentRoutes(s.routes.add)
	s.containerRoutes(s.routes.add)
	return s
}

// ServeHTTP answers a request with or without a version prefix ("/v1.41/info" or "/info").
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Api-Version", MaxVersion.String())
	header.Set("Docker-Experimental", "false")
	header.Set("Ostype", "linux")
	header.Set("Server", "Docker/"+s.options.ServerVersion+" (linux)")

	response := &response{ResponseWriter: w}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(p)
			}
			s.log.Error("panic in a request handler", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			s.fail(response, r, errdefs.New(errdefs.Internal, "internal error in %s %s; the daemon's log has the details", r.Method, r.URL.Path))
		}
	}()
	if err := s.serve(response, r); err != nil {
		s.fail(response, r, err)
	}
}

func (s *Server) serve(w *response, r *http.Request) error {
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	version, path, err := splitVersion(r.URL.Path, s.options.MinVersion)
	if err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "invalid query: %w", err)
	}
	// Form is only the query: a body is what the handler says it is, whatever Content-Type the client invents.
	r.Form, r.PostForm = query, url.Values{}
	handler := s.routes.find(r, path)
	if handler == nil {
		return errdefs.New(errdefs.NotFound, "page not found")
	}
	s.log.Debug("request", "method", r.Method, "uri", r.RequestURI)
	ctx := context.WithValue(r.Context(), versionKey{}, version)
	if s.options.Draining != nil && (r.Method == http.MethodGet || strings.HasSuffix(path, "/wait")) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.options.Draining, cancel)()
	}
	return handler(w, r.WithContext(ctx))
}

// fail answers with an error, unless the response has begun.
func (s *Server) fail(w *response, r *http.Request, err error) {
	status := statusOf(err)
	switch {
	case r.Context().Err() != nil:
		status = statusClientClosedRequest
	case status >= http.StatusInternalServerError && status != http.StatusNotImplemented:
		s.log.Error("request failed", "method", r.Method, "uri", r.RequestURI, "status", status, "error", err)
	default:
		s.log.Debug("request refused", "method", r.Method, "uri", r.RequestURI, "status", status, "error", err)
	}
	if w.begun {
		return
	}
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	if err := WriteJSON(w, status, errorBody{Message: err.Error()}); err != nil {
		s.log.Debug("write error response", "error", err)
	}
}

// response notes whether anything was sent, or the connection was taken over.
type response struct {
	http.ResponseWriter
	begun bool
}

func (w *response) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find Flush, Hijack and the deadlines.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
