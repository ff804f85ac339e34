package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxManifest = 4 << 20 // bytes
	maxTagPages = 1000
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
		if h.broken.Load() {
			continue
		}
		if !h.serves(ref) {
			first = cmp.Or(first, errdefs.New(errdefs.NotFound, "registry %s is configured not to say what the tag %s stands for", h.name, ref))
			continue
		}
		data, d, err := r.manifest(ctx, h, ref)
		if err == nil || ctx.Err() != nil {
			return data, d, err
		}
		if !h.failed(err, ref) { // the registry's own word counts most
			return nil, d, err
		}
		first = err
	}
	return nil, ocispec.Descriptor{}, first
}

// serves reports whether a host may be asked for a tag, or for a digest.
func (h *host) serves(ref string) bool {
	if strings.Contains(ref, ":") {
		return h.pull
	}
	return h.resolve
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
	body := newStallReader(ctx, resp.Body, r.client.c.Stall)
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

// Referrers fetches the index of the artifacts that refer to a manifest, as the registry lists them or, where it cannot, as the tag has them by which clients
// stand in for that (OCI distribution-spec, "Listing Referrers"). Errors: NotFound when there is none.
func (r *Repository) Referrers(ctx context.Context, d digest.Digest) ([]byte, error) {
	h := r.origin()
	resp, err := h.do(ctx, request{method: http.MethodGet, path: r.path + "/referrers/" + d.String(), header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}}, scope: r.scope()})
	if err != nil {
		return nil, err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		if err := answer(resp); !errdefs.Is(err, errdefs.NotFound) {
			return nil, err
		}
		data, _, err := r.Manifest(ctx, d.Algorithm().String()+"-"+d.Encoded())
		return data, err
	}
	body := newStallReader(ctx, resp.Body, r.client.c.Stall)
	defer body.stop()
	data, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err != nil {
		return nil, errdefs.New(errdefs.Unavailable, "read referrers of %s: %w", d, err)
	}
	if len(data) > maxManifest {
		return nil, errdefs.New(errdefs.InvalidParameter, "the list of referrers of %s has more than %d bytes", d, maxManifest)
	}
	return data, nil
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
