package registry

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"strings"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const maxTagPages = 1000

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
func (r *Repository) Manifest(ctx context.Context, ref string) (data []byte, d ocispec.Descriptor, err error) {
	err = r.each(ctx, ref, func(h *host) error { return h.serves(ref) }, func(h *host) error {
		data, d, err = r.manifest(ctx, h, ref)
		return err
	})
	return data, d, err
}

// serves tells why a host may not be asked for a tag, or for a digest; nil when it may.
func (h *host) serves(ref string) error {
	switch {
	case strings.Contains(ref, ":") && !h.pull:
		return errdefs.New(errdefs.NotFound, "registry %s is configured not to be pulled from", h.name)
	case !strings.Contains(ref, ":") && !h.resolve:
		return errdefs.New(errdefs.NotFound, "registry %s is configured not to say what tags there are and what they stand for", h.name)
	default:
		return nil
	}
}

func (r *Repository) manifest(ctx context.Context, h *host, ref string) ([]byte, ocispec.Descriptor, error) {
	data, header, err := h.document(ctx, request{path: r.path + "/manifests/" + ref, header: http.Header{"Accept": {strings.Join(accepted(), ", ")}}, scope: r.scope()})
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data)), MediaType: header.Get("Content-Type")}
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
func (r *Repository) Referrers(ctx context.Context, d digest.Digest) (data []byte, err error) {
	tag := d.Algorithm().String() + "-" + d.Encoded()
	err = r.each(ctx, "referrers of "+d.String(), func(h *host) error { return h.serves(tag) }, func(h *host) error {
		data, _, err = h.document(ctx, request{path: r.path + "/referrers/" + d.String(), header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}}, scope: r.scope()})
		if errdefs.Is(err, errdefs.NotFound) {
			data, _, err = r.manifest(ctx, h, tag)
		}
		return err
	})
	return data, err
}

// Tags lists all tags.
func (r *Repository) Tags(ctx context.Context) (tags []string, err error) {
	err = r.each(ctx, "tags", func(h *host) error { return h.serves("list") }, func(h *host) error {
		tags, err = r.tags(ctx, h)
		return err
	})
	return tags, err
}

func (r *Repository) tags(ctx context.Context, h *host) ([]string, error) {
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
	data, header, err := h.document(ctx, request{path: path, scope: r.scope()})
	if err != nil {
		return nil, "", err
	}
	var page struct{ Tags []string }
	if err := json.Unmarshal(data, &page); err != nil {
		return nil, "", errdefs.New(errdefs.InvalidParameter, "read tags: %w", err)
	}
	// Link: </v2/name/tags/list?n=100&last=x>; rel="next": only the query counts, the path is ours.
	link := header.Get("Link")
	if _, query, ok := strings.Cut(link, "?"); ok && strings.Contains(link, `rel="next"`) {
		query, _, _ = strings.Cut(query, ">")
		next = r.path + "/tags/list?" + query
	}
	return page.Tags, next, nil
}
