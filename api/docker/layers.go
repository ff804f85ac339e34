package docker

import (
	"io"
	"net/http"

	"gantry/errdefs"
	"gantry/image"
)

const maxKeys = 1 << 20 // bytes

// layersRoutes registers the endpoints that look into images, which docker has none of.
func (s *Server) layersRoutes(add func(method, pattern string, h Handler)) {
	add(http.MethodGet, "/gantry/images/layers", s.imageLayers)
	add(http.MethodGet, "/gantry/images/compare", s.imageCompare)
	add(http.MethodPost, "/gantry/images/squash", s.imageSquash)
	add(http.MethodPost, "/gantry/images/settle", s.imageSettle)
	add(http.MethodPost, "/gantry/images/verify", s.imageVerify)
	add(http.MethodPost, "/gantry/images/copy", s.imageCopy)
}

// imageLayers lists the layers of ?image=.
func (s *Server) imageLayers(w http.ResponseWriter, r *http.Request) error {
	l, err := s.engine.Images.Layers(r.Context(), r.FormValue("image"))
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, l)
}

// imageCompare lists the files that differ between ?from= and ?to=.
func (s *Server) imageCompare(w http.ResponseWriter, r *http.Request) error {
	list, err := s.engine.Images.Compare(r.Context(), r.FormValue("from"), r.FormValue("to"))
	if err != nil {
		return err
	}
	if list == nil {
		list = []image.FileDifference{}
	}
	return WriteJSON(w, http.StatusOK, list)
}

// imageSquash makes an image of one layer of ?image=, named ?repo= and ?tag=, and returns its ID.
func (s *Server) imageSquash(w http.ResponseWriter, r *http.Request) error {
	i, err := s.engine.Images.Squash(r.Context(), r.FormValue("image"), image.SquashOptions{Repo: r.FormValue("repo"), Tag: r.FormValue("tag"), Message: r.FormValue("comment")})
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusCreated, struct{ ID string }{i.ID.String()})
}

// imageSettle replaces the compressed layers of all images by what is missing to make them anew, and waits for that.
func (s *Server) imageSettle(w http.ResponseWriter, r *http.Request) error {
	done, err := s.engine.Images.Settle(r.Context())
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, done)
}

// imageVerify says what the policy makes of the signatures of ?image=, or a key if the body has one.
func (s *Server) imageVerify(w http.ResponseWriter, r *http.Request) error {
	key, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxKeys))
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "read key: %w", err)
	}
	verdicts, err := s.engine.Images.Verify(r.Context(), r.FormValue("image"), image.VerifyOptions{Key: key, Auth: authOf(r)})
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusOK, verdicts)
}

// imageCopy copies ?from= to ?to=, from registry to registry. The header X-Registry-Config has the credentials of both.
func (s *Server) imageCopy(w http.ResponseWriter, r *http.Request) error {
	from, to := r.FormValue("from"), r.FormValue("to")
	auths := authsOf(r)
	stream := NewStream(w, r)
	_, err := s.engine.Images.Copy(r.Context(), from, to, image.CopyOptions{From: auths.of(from), To: auths.of(to), Progress: stream.progress})
	return stream.End(err)
}
