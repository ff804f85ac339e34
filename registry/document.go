package registry

import (
	"cmp"
	"context"
	"io"
	"net/http"

	"gantry/errdefs"
)

const maxDocument = 4 << 20 // bytes of a manifest, an index or a list

// each asks those hosts that can, in their order, until get has what it wants of one. can tells why a host is not to be asked. The registry's own word, which is the last, counts most.
func (r *Repository) each(ctx context.Context, what string, can, get func(*host) error) error {
	var last error
	for _, h := range r.hosts {
		if h.broken.Load() {
			continue
		}
		if err := can(h); err != nil {
			last = cmp.Or(last, err)
			continue
		}
		err := get(h)
		if err == nil || ctx.Err() != nil || !h.failed(err, what) {
			return err
		}
		last = err
	}
	return last
}

// document fetches a manifest, an index or a list, again where it breaks off. Errors: as the registry says; InvalidParameter when it is too large.
func (h *host) document(ctx context.Context, r request) (data []byte, header http.Header, err error) {
	r.method, r.once = http.MethodGet, true
	for budget := h.client.budget(h.attempts()); ; {
		if data, header, err = h.read(ctx, r); err == nil {
			return data, header, nil
		}
		if err := budget.again(ctx, err); err != nil {
			return nil, nil, err
		}
	}
}

// read is document without further attempts.
func (h *host) read(ctx context.Context, r request) ([]byte, http.Header, error) {
	resp, err := h.do(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, nil, answer(resp)
	}
	data, err := h.client.readAll(ctx, resp, maxDocument)
	return data, resp.Header, err
}

// readAll reads a small answer, unless it stalls. Errors: Unavailable when it breaks off, InvalidParameter when it has more than limit bytes.
func (c *Client) readAll(ctx context.Context, resp *http.Response, limit int64) ([]byte, error) {
	body := newStallReader(ctx, resp.Body, c.c.Stall)
	defer body.stop()
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, errdefs.New(errdefs.Unavailable, "read %s: %w", bare(resp.Request.URL.String()), err)
	}
	if int64(len(data)) > limit {
		return nil, errdefs.New(errdefs.InvalidParameter, "%s has more than %d bytes", bare(resp.Request.URL.String()), limit)
	}
	return data, nil
}
