package graph

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"gantry/build/tree"
	"gantry/errdefs"
)

func isURL(name string) bool {
	return strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://")
}

// fetch downloads a file that ADD names. It keeps its last element as its name, and is for root alone, as docker has it. to tells whether the name matters.
func (b *build) fetch(ctx context.Context, address, to string) (piece, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return piece{}, errdefs.New(errdefs.InvalidParameter, "%q is no URL", address)
	}
	name := path.Base(u.Path)
	if strings.HasSuffix(u.Path, "/") || name == "/" || name == "." {
		if strings.HasSuffix(to, "/") {
			return piece{}, errdefs.New(errdefs.InvalidParameter, "cannot determine filename from url: %s", u.Redacted())
		}
		name = "file"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return piece{}, errdefs.With(errdefs.InvalidParameter, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return piece{}, fmt.Errorf("download %s: %w", u.Redacted(), err)
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	if response.StatusCode != http.StatusOK {
		return piece{}, errdefs.New(errdefs.InvalidParameter, "download %s: the server answers %s", u.Redacted(), response.Status)
	}
	modified, err := http.ParseTime(response.Header.Get("Last-Modified"))
	if err != nil {
		modified = time.Unix(0, 0)
	}
	limit := b.currentLimits().OrDefault().Size
	body := &io.LimitedReader{R: response.Body, N: limit + 1}
	t, e, err := tree.File(ctx, name, 0o600, modified, body, b.tmp)
	if err != nil {
		return piece{}, fmt.Errorf("download %s: %w", u.Redacted(), err)
	}
	if body.N == 0 {
		_ = t.Close() // of no use
		return piece{}, errdefs.New(errdefs.InvalidParameter, "download %s: it has more than %d bytes: raise max-layer-size in the daemon's configuration if it is to be trusted", u.Redacted(), limit)
	}
	return piece{Entry: e, tree: t}, nil
}
