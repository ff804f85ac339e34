// Package registrytest has a registry for tests: it serves and takes images in memory by the OCI distribution specification, remembers what it was asked, and
// misbehaves as a test wants it to.
package registrytest

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const maxUpload = 1 << 30 // bytes

// Registry is a registry on loopback. Its methods may be called concurrently.
type Registry struct {
	*httptest.Server
	cancel context.CancelFunc // ends all answers

	mu        sync.Mutex // guards all below
	blobs     map[string]map[digest.Digest][]byte
	manifests map[string]manifest // by repository and tag or digest
	uploads   map[string]*upload
	faults    []*Fault
	requests  []Request
	sent      *atomic.Int64 // bytes of blobs, asked for since Forget
	streams   int           // of blobs, now
	most      int           // streams at once
}

type manifest struct {
	mediaType string
	data      []byte
}

type upload struct {
	repository string
	data       []byte
}

// Request is one request that a registry got.
type Request struct {
	Method, Path, Query   string
	Range, Authorization  string
	ContentRange, Referer string
	Body                  string // of a form
}

// New starts a registry without TLS.
func New() *Registry {
	r := fresh()
	r.Start()
	return r
}

// NewTLS starts a registry with TLS and the certificate of package httptest.
func NewTLS() *Registry {
	r := fresh()
	r.StartTLS()
	return r
}

// fresh returns a registry that is not started.
func fresh() *Registry {
	r := &Registry{blobs: map[string]map[digest.Digest][]byte{}, manifests: map[string]manifest{}, uploads: map[string]*upload{}, sent: new(atomic.Int64)}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.Server = httptest.NewUnstartedServer(r)
	r.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	return r
}

// Close ends what is under way, stalled or not, and the registry.
func (r *Registry) Close() {
	r.cancel()
	r.CloseClientConnections()
	r.Server.Close()
}

// Host returns host:port.
func (r *Registry) Host() string { return r.Listener.Addr().String() }

// AddBlob gives a repository a blob.
func (r *Registry) AddBlob(repository string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addBlob(repository, d.Digest, data)
	return d
}

func (r *Registry) addBlob(repository string, d digest.Digest, data []byte) {
	if r.blobs[repository] == nil {
		r.blobs[repository] = map[digest.Digest][]byte{}
	}
	r.blobs[repository][d] = data
}

// Drop takes all blobs and manifests from a repository.
func (r *Registry) Drop(repository string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.blobs, repository)
	for name := range r.manifests {
		if strings.HasPrefix(name, repository+":") {
			delete(r.manifests, name)
		}
	}
}

// AddManifest gives a repository a manifest by its digest, and by a tag unless that is empty.
func (r *Registry) AddManifest(repository, tag, mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manifests[repository+":"+d.Digest.String()] = manifest{mediaType, data}
	if tag != "" {
		r.manifests[repository+":"+tag] = manifest{mediaType, data}
	}
	return d
}

// AddImage gives a repository an image of layers, each a tar or one compressed with gzip, for a platform, under a tag unless that is empty.
func (r *Registry) AddImage(repository, tag string, platform ocispec.Platform, layers ...[]byte) ocispec.Descriptor {
	config := ocispec.Image{Platform: platform, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	for _, l := range layers {
		d := r.AddBlob(repository, l)
		d.MediaType = ocispec.MediaTypeImageLayer
		diffID := d.Digest
		if z, err := gzip.NewReader(bytes.NewReader(l)); err == nil {
			d.MediaType = ocispec.MediaTypeImageLayerGzip
			if diffID, err = digest.FromReader(z); err != nil {
				panic(err)
			}
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		m.Layers = append(m.Layers, d)
	}
	m.Config = r.AddBlob(repository, encode(config))
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	d := r.AddManifest(repository, tag, m.MediaType, encode(m))
	d.Platform = &platform
	return d
}

// AddIndex gives a repository an index of manifests.
func (r *Registry) AddIndex(repository, tag, mediaType string, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	return r.AddManifest(repository, tag, mediaType, encode(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: manifests}))
}

// encode returns JSON of what has some.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// Blob returns a repository's blob, or nil.
func (r *Registry) Blob(repository string, d digest.Digest) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobs[repository][d]
}

// Manifest returns a repository's manifest by tag or digest, or nil.
func (r *Registry) Manifest(repository, ref string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.manifests[repository+":"+ref].data
}

// Requests returns what was asked so far.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Count returns how many requests have a method and a path with some text in it; empty stands for any.
func (r *Registry) Count(method, path string) int {
	n := 0
	for _, q := range r.Requests() {
		if (method == "" || q.Method == method) && strings.Contains(q.Path, path) {
			n++
		}
	}
	return n
}

// Credentials returns all that was sent to let somebody in: Authorization headers and forms.
func (r *Registry) Credentials() []string {
	var found []string
	for _, q := range r.Requests() {
		if q.Authorization != "" {
			found = append(found, q.Authorization)
		}
		if q.Body != "" {
			found = append(found, q.Body)
		}
	}
	return found
}

// Sent returns how many bytes of blobs were written to clients so far.
func (r *Registry) Sent() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent.Load()
}

// Streams returns how many answers with blobs there were at once, at most.
func (r *Registry) Streams() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most
}

// Forget drops what was remembered of requests, and all faults.
func (r *Registry) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests, r.sent, r.most, r.faults = nil, new(atomic.Int64), 0, nil
}

// ServeHTTP answers as the distribution specification says, unless a fault is due.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	q := Request{
		Method: req.Method, Path: req.URL.Path, Query: req.URL.RawQuery, Range: req.Header.Get("Range"), Authorization: req.Header.Get("Authorization"),
		ContentRange: req.Header.Get("Content-Range"), Referer: req.Referer(),
	}
	if req.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		if body, err := io.ReadAll(io.LimitReader(req.Body, 64<<10)); err == nil {
			q.Body = string(body)
		}
		req.Body = io.NopCloser(strings.NewReader(q.Body))
	}
	r.mu.Lock()
	r.requests = append(r.requests, q)
	fault := r.due(req)
	r.mu.Unlock()
	if fault != nil {
		fault.Do(w, req, r.serve)
		return
	}
	r.serve(w, req)
}

// due takes the first fault that a request meets. The caller holds mu.
func (r *Registry) due(req *http.Request) *Fault {
	for _, f := range r.faults {
		if f.Times < 0 || f.Method != "" && f.Method != req.Method || !strings.Contains(req.URL.Path, f.Path) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				f.Times = -1
			}
		}
		return f
	}
	return nil
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok {
		http.NotFound(w, req)
		return
	}
	if path == "" {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		return
	}
	for _, kind := range []struct {
		infix string
		serve func(w http.ResponseWriter, req *http.Request, repository, rest string)
	}{{"/manifests/", r.serveManifest}, {"/blobs/uploads/", r.serveUpload}, {"/blobs/", r.serveBlob}, {"/tags/", r.serveTags}} {
		if i := strings.LastIndex(path, kind.infix); i > 0 {
			kind.serve(w, req, path[:i], path[i+len(kind.infix):])
			return
		}
	}
	http.NotFound(w, req)
}

// fail answers with an error of the distribution specification.
func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, strings.ToLower(strings.ReplaceAll(code, "_", " "))) // the client may have left
}

func (r *Registry) serveManifest(w http.ResponseWriter, req *http.Request, repository, ref string) {
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		r.mu.Lock()
		m, ok := r.manifests[repository+":"+ref]
		r.mu.Unlock()
		if !ok {
			fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
			return
		}
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.data).String())
		w.Header().Set("Content-Length", strconv.Itoa(len(m.data)))
		_, _ = w.Write(m.data) // the client may have left
	case http.MethodPut:
		data, err := io.ReadAll(io.LimitReader(req.Body, maxUpload))
		if err != nil {
			return
		}
		d := r.AddManifest(repository, ref, req.Header.Get("Content-Type"), data)
		w.Header().Set("Docker-Content-Digest", d.Digest.String())
		w.WriteHeader(http.StatusCreated)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
	}
}

func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, repository, ref string) {
	data := r.Blob(repository, digest.Digest(ref))
	if data == nil {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if req.Method != http.MethodGet {
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(data))
		return
	}
	c := counter{ResponseWriter: w, r: r}
	r.mu.Lock()
	r.streams++
	r.most = max(r.most, r.streams)
	c.sent = r.sent
	r.mu.Unlock()
	defer c.end()
	http.ServeContent(&c, req, "", time.Time{}, bytes.NewReader(data))
}

// counter adds up the bytes of an answer with a blob. It counts bytes, and the end of the stream, before the client can have seen them: a test that has all of its bytes
// has all of their count.
type counter struct {
	http.ResponseWriter
	r     *Registry
	sent  *atomic.Int64
	begun bool
	left  int64 // bytes, once begun
	ended bool
}

func (c *counter) Write(p []byte) (int, error) {
	if !c.begun {
		c.begun = true
		c.left, _ = strconv.ParseInt(c.Header().Get("Content-Length"), 10, 64) // several ranges have none: they end with the first byte
	}
	c.sent.Add(int64(len(p)))
	if c.left -= int64(len(p)); c.left <= 0 {
		c.end()
	}
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n - len(p)))
	return n, err
}

func (c *counter) end() {
	if !c.ended {
		c.ended = true
		c.r.mu.Lock()
		c.r.streams--
		c.r.mu.Unlock()
	}
}

func (r *Registry) serveTags(w http.ResponseWriter, _ *http.Request, repository, _ string) {
	list := struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{Name: repository}
	r.mu.Lock()
	for name := range r.manifests {
		if tag, ok := strings.CutPrefix(name, repository+":"); ok && !strings.Contains(tag, ":") {
			list.Tags = append(list.Tags, tag)
		}
	}
	r.mu.Unlock()
	slices.Sort(list.Tags)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(encode(list)) // the client may have left
}

func (r *Registry) serveUpload(w http.ResponseWriter, req *http.Request, repository, id string) {
	if req.Method == http.MethodPost && id == "" {
		r.beginUpload(w, req, repository)
		return
	}
	r.mu.Lock()
	u := r.uploads[id]
	r.mu.Unlock()
	if u == nil || u.repository != repository {
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		return
	}
	switch req.Method {
	case http.MethodGet:
		r.accept(w, http.StatusNoContent, id, u)
	case http.MethodPatch:
		r.mu.Lock()
		have := len(u.data)
		r.mu.Unlock()
		if span := req.Header.Get("Content-Range"); span != "" {
			if first, _, _ := strings.Cut(span, "-"); first != strconv.Itoa(have) {
				w.Header().Set("Range", "0-"+strconv.Itoa(max(0, have-1)))
				fail(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
				return
			}
		}
		if r.receive(u, req.Body) == nil {
			r.accept(w, http.StatusAccepted, id, u)
		}
	case http.MethodPut:
		if r.receive(u, req.Body) != nil {
			return
		}
		r.finishUpload(w, req, id, u)
	case http.MethodDelete:
		r.mu.Lock()
		delete(r.uploads, id)
		r.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
	}
}

func (r *Registry) beginUpload(w http.ResponseWriter, req *http.Request, repository string) {
	q := req.URL.Query()
	if d := digest.Digest(q.Get("mount")); d != "" {
		if data := r.Blob(q.Get("from"), d); data != nil {
			r.mu.Lock()
			r.addBlob(repository, d, data)
			r.mu.Unlock()
			w.Header().Set("Location", "/v2/"+repository+"/blobs/"+d.String())
			w.WriteHeader(http.StatusCreated)
			return
		}
	}
	r.mu.Lock()
	id := fmt.Sprintf("u%d", len(r.requests))
	u := &upload{repository: repository}
	r.uploads[id] = u
	r.mu.Unlock()
	r.accept(w, http.StatusAccepted, id, u)
}

// accept says how much of an upload has come.
func (r *Registry) accept(w http.ResponseWriter, status int, id string, u *upload) {
	r.mu.Lock()
	have := len(u.data)
	r.mu.Unlock()
	w.Header().Set("Location", "/v2/"+u.repository+"/blobs/uploads/"+id+"?state=x")
	w.Header().Set("Docker-Upload-UUID", id)
	w.Header().Set("Range", "0-"+strconv.Itoa(max(0, have-1)))
	w.WriteHeader(status)
}

// receive appends a body to an upload as it comes: what came before a broken connection stays.
func (r *Registry) receive(u *upload, body io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		r.mu.Lock()
		u.data = append(u.data, buf[:n]...)
		large := len(u.data) > maxUpload
		r.mu.Unlock()
		switch {
		case err == io.EOF: //nolint:errorlint // a reader's own
			return nil
		case err != nil || large:
			return cmp.Or(err, io.ErrShortBuffer)
		}
	}
}

func (r *Registry) finishUpload(w http.ResponseWriter, req *http.Request, id string, u *upload) {
	d := digest.Digest(req.URL.Query().Get("digest"))
	r.mu.Lock()
	delete(r.uploads, id)
	good := digest.FromBytes(u.data) == d
	if good {
		r.addBlob(u.repository, d, u.data)
	}
	r.mu.Unlock()
	if !good {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID")
		return
	}
	w.Header().Set("Location", "/v2/"+u.repository+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}
