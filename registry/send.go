package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// origin returns the registry itself, behind any mirrors.
func (r *Repository) origin() *host { return r.hosts[len(r.hosts)-1] }

// Has reports whether the repository has a blob.
func (r *Repository) Has(ctx context.Context, d digest.Digest) (bool, error) {
	resp, err := r.origin().do(ctx, request{method: http.MethodHead, path: r.path + "/blobs/" + d.String(), scope: r.scope()})
	if err != nil {
		return false, err
	}
	defer drop(resp)
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	default:
		return false, answer(resp)
	}
}

// Upload sends a blob, which open gives as often as it is needed. With from, another repository of the same registry, the registry may take the blob from there, in which
// case mounted is true and nothing was sent.
func (r *Repository) Upload(ctx context.Context, d ocispec.Descriptor, from string, open func() (io.ReadCloser, error)) (mounted bool, err error) {
	h := r.origin()
	path, scope := r.path+"/blobs/uploads/", r.scope()
	if from != "" {
		path += "?" + url.Values{"mount": {d.Digest.String()}, "from": {from}}.Encode()
		scope = append(scope, "repository:"+from+":pull")
	}
	resp, err := h.do(ctx, request{method: http.MethodPost, path: path, scope: scope, body: empty})
	if err != nil {
		return false, err
	}
	defer drop(resp)
	switch {
	case resp.StatusCode == http.StatusCreated && from != "":
		return true, nil
	case resp.StatusCode != http.StatusAccepted:
		return false, answer(resp)
	}
	location, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || location.Host == "" {
		return false, errdefs.New(errdefs.InvalidParameter, "registry %s gives no place to upload to", h.name)
	}
	q := location.Query()
	q.Set("digest", d.Digest.String())
	location.RawQuery = q.Encode()
	put, err := h.do(ctx, request{
		method: http.MethodPut, url: location, scope: r.scope(), body: open, size: d.Size, once: true,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
	})
	if err != nil {
		return false, err
	}
	defer drop(put)
	if put.StatusCode != http.StatusCreated {
		return false, answer(put)
	}
	return false, nil
}

func empty() (io.ReadCloser, error) { return http.NoBody, nil }

// PutManifest sends a manifest under a tag or its digest.
func (r *Repository) PutManifest(ctx context.Context, ref, mediaType string, data []byte) error {
	resp, err := r.origin().do(ctx, request{
		method: http.MethodPut, path: r.path + "/manifests/" + ref, scope: r.scope(), size: int64(len(data)),
		body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		header: http.Header{"Content-Type": {mediaType}},
	})
	if err != nil {
		return err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return answer(resp)
	}
	return nil
}

// Code returns the distribution specification's code of an error, or "".
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
