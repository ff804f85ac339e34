package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxManifest = 4 << 20 // bytes
	maxTagPages = 1000
	stallWindow = 60 * time.Second
	stallBytes  = 4 << 10 // a blob that comes slower than this per window has stalled
)

// accepted lists the manifests that are understood.
func accepted() []string {
	return []string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
	}
}

func (r *Repository) scope() []string {
	actions := "pull"
	if r.push {
		actions = "pull,push"
	}
	return []string{"repository:" + r.path + ":" + actions}
}

// Manifest fetches a manifest or index by tag or digest, and verifies a digest. Errors: NotFound, Unauthorized, Forbidden, Unavailable.
func (r *Repository) Manifest(ctx context.Context, ref string) ([]byte, ocispec.Descriptor, error) {
	var first error
	for _, h := range r.hosts {
		data, d, err := r.manifest(ctx, h, ref)
		if err == nil || ctx.Err() != nil {
			return data, d, err
		}
		if !h.mirror { // the registry's own word counts most
			return nil, d, err
		}
		r.client.c.Log.Warn("registry mirror failed", "mirror", h.name, "error", err)
		first = err
	}
	return nil, ocispec.Descriptor{}, first
}

func (r *Repository) manifest(ctx context.Context, h *host, ref string) ([]byte, ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	resp, err := h.do(ctx, request{method: http.MethodGet, path: r.path + "/manifests/" + ref, header: http.Header{"Accept": {strings.Join(accepted(), ", ")}}, scope: r.scope()})
	if err != nil {
		return nil, d, err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, d, answer(resp)
	}
	body := newStallReader(ctx, resp.Body)
	defer body.stop()
	data, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err != nil {
		return nil, d, errdefs.New(errdefs.Unavailable, "read manifest %s: %w", ref, err)
	}
	if len(data) > maxManifest {
		return nil, d, errdefs.New(errdefs.InvalidParameter, "manifest %s has more than %d bytes", ref, maxManifest)
	}
	d = ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data)), MediaType: resp.Header.Get("Content-Type")}
	if t, _, err := mime.ParseMediaType(d.MediaType); err == nil {
		d.MediaType = t
	}
	if want := digest.Digest(ref); want.Validate() == nil && want != d.Digest {
		return nil, d, errdefs.New(errdefs.InvalidParameter, "manifest verification failed for digest %s", want)
	}
	return data, d, nil
}

// Sink takes in a blob. Reset drops what was written.
type Sink interface {
	io.Writer
	Size() int64
	Reset() error
}

// Blob fetches a blob into the sink, going on where it was cut off. It does not verify the digest, which the sink does. Errors: NotFound, Unauthorized, Forbidden,
// Unavailable; InvalidParameter when the registry sends more than the descriptor says.
func (r *Repository) Blob(ctx context.Context, d ocispec.Descriptor, to Sink, progress func(total int64)) error {
	var last error
	for _, h := range r.hosts {
		wait := 200 * time.Millisecond
		for range maxAttempts {
			again, err := r.blob(ctx, h, d, to, progress)
			if err == nil || ctx.Err() != nil {
				return err
			}
			if last = err; !again {
				break
			}
			if err := pause(ctx, wait); err != nil {
				return err
			}
			wait *= 2
		}
	}
	return last
}

// blob asks one host for what the sink has not got yet. again says that asking once more may help.
func (r *Repository) blob(ctx context.Context, h *host, d ocispec.Descriptor, to Sink, progress func(int64)) (again bool, err error) {
	if to.Size() == d.Size {
		return false, nil
	}
	header := http.Header{}
	if to.Size() > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", to.Size()))
	}
	resp, err := h.do(ctx, request{method: http.MethodGet, path: r.path + "/blobs/" + d.Digest.String(), header: header, scope: r.scope()})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	switch resp.StatusCode {
	case http.StatusOK:
		if to.Size() > 0 { // the host has no ranges
			if err := to.Reset(); err != nil {
				return false, err
			}
		}
	case http.StatusPartialContent:
		if !rangeFits(resp.Header.Get("Content-Range"), to.Size(), d.Size) {
			return true, errors.Join(errdefs.New(errdefs.Unavailable, "registry sent another range than it was asked for"), to.Reset())
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return true, errors.Join(answer(resp), to.Reset())
	default:
		return false, answer(resp)
	}
	body := newStallReader(ctx, resp.Body)
	defer body.stop()
	buf := make([]byte, 256<<10)
	for {
		n, rerr := body.Read(buf)
		if to.Size()+int64(n) > d.Size {
			return false, errdefs.New(errdefs.InvalidParameter, "blob %s has more than %d bytes", d.Digest, d.Size)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return false, err
		}
		progress(to.Size())
		switch {
		case errors.Is(rerr, io.EOF) && to.Size() == d.Size:
			return false, nil
		case errors.Is(rerr, io.EOF):
			return true, errdefs.New(errdefs.Unavailable, "blob %s ended after %d of %d bytes", d.Digest, to.Size(), d.Size)
		case rerr != nil:
			return true, errdefs.New(errdefs.Unavailable, "read blob %s: %w", d.Digest, rerr)
		}
	}
}

// rangeFits checks a Content-Range header, "bytes 5-9/10", against what was asked for.
func rangeFits(header string, offset, size int64) bool {
	span, ok := strings.CutPrefix(header, "bytes ")
	if !ok {
		return false
	}
	span, total, _ := strings.Cut(span, "/")
	first, _, ok := strings.Cut(span, "-")
	if n, err := strconv.ParseInt(first, 10, 64); !ok || err != nil || n != offset {
		return false
	}
	n, err := strconv.ParseInt(total, 10, 64)
	return total == "*" || err == nil && n == size
}

// Tags lists all tags.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	h := r.origin()
	var tags []string
	path := r.path + "/tags/list"
	for range maxTagPages {
		page, next, err := r.tagPage(ctx, h, path)
		if err != nil {
			return nil, err
		}
		tags = append(tags, page...)
		if next == "" {
			return tags, nil
		}
		path = next
	}
	return nil, errdefs.New(errdefs.InvalidParameter, "repository %s has more than %d pages of tags", r.path, maxTagPages)
}

func (r *Repository) tagPage(ctx context.Context, h *host, path string) (tags []string, next string, err error) {
	resp, err := h.do(ctx, request{method: http.MethodGet, path: path, scope: r.scope()})
	if err != nil {
		return nil, "", err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, "", answer(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest))
	if err != nil {
		return nil, "", errdefs.New(errdefs.Unavailable, "read tags: %w", err)
	}
	var page struct{ Tags []string }
	if err := json.Unmarshal(data, &page); err != nil {
		return nil, "", errdefs.New(errdefs.InvalidParameter, "read tags: %w", err)
	}
	// Link: </v2/name/tags/list?n=100&last=x>; rel="next": only the query counts, the path is ours.
	link := resp.Header.Get("Link")
	if _, query, ok := strings.Cut(link, "?"); ok && strings.Contains(link, `rel="next"`) {
		query, _, _ = strings.Cut(query, ">")
		next = r.path + "/tags/list?" + query
	}
	return page.Tags, next, nil
}

// stallReader fails a body of which less than stallBytes came in stallWindow.
type stallReader struct {
	body  io.ReadCloser
	timer *time.Timer
	got   int
	end   func() bool
}

func newStallReader(ctx context.Context, body io.ReadCloser) *stallReader {
	closeBody := func() { _ = body.Close() } // makes Read fail
	return &stallReader{body: body, timer: time.AfterFunc(stallWindow, closeBody), end: context.AfterFunc(ctx, closeBody)}
}

func (r *stallReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if r.got += n; r.got >= stallBytes {
		r.got = 0
		r.timer.Reset(stallWindow)
	}
	return n, err
}

func (r *stallReader) stop() {
	r.timer.Stop()
	r.end()
}
