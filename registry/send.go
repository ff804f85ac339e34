package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
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
