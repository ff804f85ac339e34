package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/archive"
	"gantry/build/dockerfile"
	"gantry/errdefs"
	"gantry/image"
)

// imageCreate is docker's one endpoint for pull (fromImage) and import (fromSrc).
func (s *Server) imageCreate(w http.ResponseWriter, r *http.Request) error {
	var platform *ocispec.Platform
	if text := r.Form.Get("platform"); text != "" && VersionOf(r) >= 32 {
		p, err := image.ParsePlatform(text)
		if err != nil {
			return err
		}
		platform = p
	}
	if r.Form.Get("fromImage") != "" {
		return s.imagePull(w, r, platform)
	}
	return s.imageImport(w, r, platform)
}

func (s *Server) imagePull(w http.ResponseWriter, r *http.Request, platform *ocispec.Platform) error {
	// "pull -a" of older clients sends a name with a trailing colon.
	ref, err := reference.ParseNormalizedNamed(strings.TrimSuffix(r.Form.Get("fromImage"), ":"))
	if err != nil {
		return errdefs.With(errdefs.InvalidParameter, err)
	}
	if tag := r.Form.Get("tag"); tag != "" {
		if d, derr := digest.Parse(tag); derr == nil {
			ref, err = reference.WithDigest(reference.TrimNamed(ref), d)
		} else {
			ref, err = reference.WithTag(ref, tag)
		}
		if err != nil {
			return errdefs.With(errdefs.InvalidParameter, err)
		}
	}
	if reference.FamiliarName(ref) == "scratch" {
		return errdefs.New(errdefs.Forbidden, "'scratch' is a reserved name")
	}
	stream := NewStream(w, r)
	_, err = s.engine.Images.Pull(r.Context(), ref.String(), image.PullOptions{
		Platform: platform, Auth: authOf(r), AllTags: reference.IsNameOnly(ref), AllPlatforms: Bool(r, "all-platforms"), Progress: stream.progress,
	})
	return stream.End(err)
}

// progress sends a service's progress; a client that left is noticed by the request's context.
func (s *Stream) progress(p image.Progress) { _ = s.Send(progressMessage(p)) }

func progressMessage(p image.Progress) Message {
	m := Message{ID: p.ID, Status: p.Status, Aux: p.Aux}
	if p.Current != 0 || p.Total != 0 {
		m.Progress = &Progress{Current: p.Current, Total: p.Total}
	} else if p.ID != "" {
		m.Progress = &Progress{}
	}
	return m
}

func (s *Server) imageImport(w http.ResponseWriter, r *http.Request, platform *ocispec.Platform) error {
	source := r.Form.Get("fromSrc")
	target, err := tagReference(r.Form.Get("repo"), r.Form.Get("tag"))
	if err != nil {
		return err
	}
	config, err := dockerfile.Change(dockerspec.DockerOCIImageConfig{}, r.Form["changes"])
	if err != nil {
		return err
	}
	o := image.ImportOptions{Config: config, Message: r.Form.Get("message"), Platform: platform, Source: source}
	if target != nil {
		o.Repo, o.Tag = reference.TrimNamed(target).String(), target.Tag()
	}
	if o.Message == "" {
		o.Message = "Imported from " + source
	}
	stream := NewStream(w, r)
	var body io.Reader = r.Body
	if source != "-" {
		remote, err := openURL(r.Context(), source)
		if err != nil {
			return err
		}
		defer func() { _ = remote.Close() }() // only read
		if err := stream.Status("", "Downloading from %s", source); err != nil {
			return err
		}
		body = remote
	}
	i, err := s.engine.Images.Import(r.Context(), body, o)
	if err != nil {
		return stream.End(err)
	}
	return stream.Status("", "%s", i.ID)
}

// openURL opens the source of an import; http is the default scheme.
func openURL(ctx context.Context, source string) (io.ReadCloser, error) {
	if !strings.Contains(source, "://") {
		source = "http://" + source
	}
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errdefs.New(errdefs.InvalidParameter, "invalid source %q: an http or https URL is wanted", source)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errdefs.With(errdefs.InvalidParameter, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", u.Redacted(), err)
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close() // not read
		return nil, fmt.Errorf("download %s: the server answers %s", u.Redacted(), response.Status)
	}
	return response.Body, nil
}

func (s *Server) imagePush(w http.ResponseWriter, r *http.Request) error {
	ref, err := reference.ParseNormalizedNamed(r.PathValue("name"))
	if err != nil {
		return errdefs.With(errdefs.InvalidParameter, err)
	}
	o := image.PushOptions{Auth: authOf(r)}
	if tag := r.Form.Get("tag"); tag != "" {
		if ref, err = tagReference(r.PathValue("name"), tag); err != nil {
			return err
		}
	} else if reference.IsNameOnly(ref) {
		o.AllTags = true
	}
	if text := r.Form.Get("platform"); text != "" && VersionOf(r) >= 46 {
		if o.Platform, err = decodePlatform(text); err != nil {
			return err
		}
	}
	if o.Packing, err = archive.ParsePacking(r.Form.Get("compression")); err != nil { // ours
		return err
	}
	stream := NewStream(w, r)
	o.Progress = stream.progress
	return stream.End(s.engine.Images.Push(r.Context(), ref.String(), o))
}

// platformsOf decodes the query values "platform" of load and save, which API 1.48 brought, and 1.52 for several.
func platformsOf(r *http.Request) ([]ocispec.Platform, error) {
	texts := r.Form["platform"]
	if VersionOf(r) < 48 {
		return nil, nil
	}
	if len(texts) > 1 && VersionOf(r) < 52 {
		return nil, errdefs.New(errdefs.InvalidParameter, "multiple platform parameters are not supported before API version 1.52")
	}
	var list []ocispec.Platform
	for _, text := range texts {
		p, err := decodePlatform(text)
		if err != nil {
			return nil, err
		}
		list = append(list, *p)
	}
	return list, nil
}

func (s *Server) imageLoad(w http.ResponseWriter, r *http.Request) error {
	platforms, err := platformsOf(r)
	if err != nil {
		return err
	}
	stream := NewStream(w, r)
	stream.Begin() // docker's answer to a bad archive has status 200
	o := image.LoadOptions{Platforms: platforms}
	if !BoolOr(r, "quiet", true) {
		o.Progress = stream.progress
	}
	loaded, err := s.engine.Images.Load(r.Context(), r.Body, o)
	if err != nil {
		return stream.End(err)
	}
	for _, l := range loaded {
		text := "Loaded image: " + l.Name
		if l.Name == "" {
			text = "Loaded image ID: " + l.ID.String()
		}
		if err := stream.Send(Message{Stream: text + "\n"}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) imageSave(w http.ResponseWriter, r *http.Request) error {
	platforms, err := platformsOf(r)
	if err != nil {
		return err
	}
	names := r.Form["names"]
	if name := r.PathValue("name"); name != "" {
		names = []string{name}
	}
	if len(names) == 0 {
		return errdefs.New(errdefs.InvalidParameter, "no image names were given")
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := s.engine.Images.Save(r.Context(), names, w, image.SaveOptions{Platforms: platforms}); err != nil {
		if rw, ok := w.(*response); ok && rw.begun {
			if r.Context().Err() == nil {
				s.log.Error("save broken off", "images", strings.Join(names, " "), "error", err)
			}
			panic(http.ErrAbortHandler) // the client must not take half an archive for a whole one
		}
		w.Header().Del("Content-Type")
		return err
	}
	return nil
}

// decodePlatform reads a platform in JSON.
func decodePlatform(text string) (*ocispec.Platform, error) {
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, errdefs.New(errdefs.InvalidParameter, "failed to parse platform: %w", err)
	}
	if p.OS == "" || p.Architecture == "" {
		return nil, errdefs.New(errdefs.InvalidParameter, "both OS and Architecture must be provided")
	}
	return &p, nil
}
