package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"gantry/errdefs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const maxRestarts = 4 // of one upload, from its beginning

// upload is the work of sending one blob.
type upload struct {
	*Repository
	h        *host
	d        ocispec.Descriptor
	open     func(offset int64) (io.ReadCloser, error)
	location *url.URL // where to send the rest
	offset   int64    // bytes that the registry has
	budget   *budget
}

// Upload sends a blob, which open gives from any offset, as often as it is needed. After a broken connection it goes on with what the registry has not got. With from, another
// repository of the same registry, the registry may take the blob from there, in which case mounted is true and nothing was sent.
func (r *Repository) Upload(ctx context.Context, d ocispec.Descriptor, from string, open func(offset int64) (io.ReadCloser, error)) (mounted bool, err error) {
	u := &upload{Repository: r, h: r.origin(), d: d, open: open, budget: r.client.budget(r.client.c.Attempts)}
	if from != "" {
		mounted, err := u.begin(ctx, from)
		if mounted {
			return true, nil
		}
		if err != nil && !errdefs.Is(err, errdefs.Unauthorized) && !errdefs.Is(err, errdefs.Forbidden) && !errdefs.Is(err, errdefs.NotFound) {
			return false, u.explain(err)
		}
	}
	for restarts := 0; ; restarts++ {
		err := u.run(ctx)
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, errRestart) || restarts == maxRestarts || ctx.Err() != nil {
			return false, u.explain(err)
		}
		u.location, u.offset = nil, 0
	}
}

// errRestart says that an upload has to begin anew.
var errRestart = errors.New("registry has lost what was sent")

func (u *upload) explain(err error) error {
	if errdefs.Is(err, errdefs.Canceled) || errors.Is(err, errNoCredentials) {
		return err
	}
	return errdefs.New(errdefs.KindOf(err), "send blob %s to registry %s: %w", u.d.Digest, u.h.name, err)
}

// run sends what is to be sent and ends the upload.
func (u *upload) run(ctx context.Context) error {
	if u.location == nil {
		if _, err := u.begin(ctx, ""); err != nil {
			return err
		}
	}
	if u.d.Size <= u.client.c.Chunk { // one request is enough
		return u.finish(ctx, true)
	}
	for u.offset < u.d.Size {
		before := u.offset
		err := u.patch(ctx)
		if err == nil {
			break
		}
		if errors.Is(err, errRestart) {
			return err
		}
		if err := u.budget.again(ctx, err); err != nil {
			return err
		}
		if err := u.status(ctx); err != nil {
			return err
		}
		if u.offset >= before+realProgress {
			u.budget.progress()
		}
	}
	return u.finish(ctx, false)
}

// begin asks for a place to upload to, or for the blob to be taken from another repository.
func (u *upload) begin(ctx context.Context, from string) (mounted bool, err error) {
	path, scope := u.path+"/blobs/uploads/", u.scope()
	if from != "" {
		path += "?" + url.Values{"mount": {u.d.Digest.String()}, "from": {from}}.Encode()
		scope = append(scope, "repository:"+from+":pull")
	}
	resp, err := u.h.do(ctx, request{method: http.MethodPost, path: path, scope: scope, body: empty})
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
	return false, u.moved(resp)
}

func empty() (io.ReadCloser, error) { return http.NoBody, nil }

// moved takes over where the registry wants the rest to be sent.
func (u *upload) moved(resp *http.Response) error {
	text := resp.Header.Get("Location")
	if text == "" && u.location != nil {
		return nil
	}
	location, err := resp.Request.URL.Parse(text)
	if err != nil || text == "" || location.Host == "" || location.Scheme != "http" && location.Scheme != "https" {
		return errdefs.New(errdefs.InvalidParameter, "registry %s gives no place to upload to", u.h.name)
	}
	if location.Scheme == "http" && u.h.base.Scheme == "https" && !u.h.insecure {
		return errdefs.New(errdefs.InvalidParameter, "registry %s wants the upload without TLS", u.h.name)
	}
	u.location = location
	return nil
}

// body returns what is left of the blob, for a request that is given up when the registry takes nothing for a while.
func (u *upload) body(watch *watch) func() (io.ReadCloser, error) {
	offset := u.offset
	return func() (io.ReadCloser, error) {
		r, err := u.open(offset)
		if err != nil {
			return nil, final{err}
		}
		return &watchedReader{ReadCloser: r, watch: watch}, nil
	}
}

// patch sends all that is left.
func (u *upload) patch(ctx context.Context) error {
	ctx, watch := newWatch(ctx, u.client.c.Stall)
	defer watch.stop()
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if u.offset > 0 {
		header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.d.Size-1))
	}
	resp, err := u.h.do(ctx, request{
		method: http.MethodPatch, url: u.location, scope: u.scope(), header: header, body: u.body(watch), size: u.d.Size - u.offset, once: true,
	})
	if err != nil {
		return watch.explain(err)
	}
	defer drop(resp)
	switch resp.StatusCode {
	case http.StatusAccepted, http.StatusNoContent, http.StatusCreated:
		u.offset = u.d.Size
		return u.moved(resp)
	case http.StatusNotFound:
		return errRestart
	case http.StatusRequestedRangeNotSatisfiable: // it has more or less than was thought
		return errdefs.New(errdefs.Unavailable, "%w: %w", errRange, answer(resp))
	default:
		return answer(resp)
	}
}

// status asks the registry how much it has.
func (u *upload) status(ctx context.Context) error {
	resp, err := u.h.do(ctx, request{method: http.MethodGet, url: u.location, scope: u.scope()})
	if err != nil {
		return err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return errRestart
	}
	have, ok := uploaded(resp.Header.Get("Range"))
	if !ok || have > u.d.Size {
		return errRestart
	}
	u.offset = have
	return u.moved(resp)
}

// uploaded reads the Range header of an upload's status, "0-99" for a hundred bytes. Registries write "0-0" for none as well as for one: it is taken for none, and the registry refuses
// what comes at the wrong place.
func uploaded(header string) (int64, bool) {
	header = strings.TrimPrefix(header, "bytes=")
	first, last, ok := strings.Cut(header, "-")
	if !ok || first != "0" {
		return 0, header == ""
	}
	n, err := strconv.ParseInt(last, 10, 64)
	if err != nil || n < 0 || n == 1<<63-1 {
		return 0, false
	}
	if n == 0 {
		return 0, true
	}
	return n + 1, true
}

// finish gives the blob its digest; whole sends it along.
func (u *upload) finish(ctx context.Context, whole bool) error {
	for {
		err := u.put(ctx, whole)
		var e *Error
		switch {
		case err == nil:
			return nil
		case errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Code == "DIGEST_INVALID" && !whole):
			// What was put together from several requests may have become another blob; and an answer that was lost may have been a good one.
			if has, err := u.Has(ctx, u.d.Digest); err != nil || has {
				return err
			}
			return fmt.Errorf("%w: %w", errRestart, err)
		}
		if err := u.budget.again(ctx, err); err != nil {
			return err
		}
		if has, err := u.Has(ctx, u.d.Digest); err != nil || has {
			return err
		}
		if whole {
			return errRestart // what came of it is in nobody's way
		}
	}
}

func (u *upload) put(ctx context.Context, whole bool) error {
	location := *u.location
	q := location.Query()
	q.Set("digest", u.d.Digest.String())
	location.RawQuery = q.Encode()
	ctx, watch := newWatch(ctx, u.client.c.Stall)
	defer watch.stop()
	r := request{method: http.MethodPut, url: &location, scope: u.scope(), body: empty, once: true, header: http.Header{"Content-Type": {"application/octet-stream"}}}
	if whole {
		r.body, r.size = u.body(watch), u.d.Size
	}
	resp, err := u.h.do(ctx, r)
	if err != nil {
		return watch.explain(err)
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return answer(resp)
	}
	return nil
}

// watch gives a request up when nothing of its body was taken for a while.
type watch struct {
	window time.Duration
	cancel context.CancelCauseFunc

	mu    sync.Mutex // guards all below
	timer *time.Timer
	ended bool
	fired bool
}

func newWatch(ctx context.Context, window time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{window: window, cancel: cancel}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(4*window, w.fire) // until the first byte is taken: connections, tokens and headers have their own limits
	return ctx, w
}

func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.fired = true
		w.cancel(errStalled)
	}
}

// step says that something was taken; pause, that the registry is waited for no more, or not by this watch.
func (w *watch) step(pause bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pause {
		w.timer.Stop()
		return
	}
	if !w.ended {
		w.timer.Reset(w.window)
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
	w.cancel(nil)
}

// explain tells a request that was given up from one that was cancelled.
func (w *watch) explain(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fired {
		return errdefs.New(errdefs.Unavailable, "%w: nothing was taken in %s", errStalled, w.window)
	}
	return err
}

// watchedReader tells a watch of every read.
type watchedReader struct {
	io.ReadCloser
	watch *watch
}

func (r *watchedReader) Read(p []byte) (int, error) {
	r.watch.step(true) // a slow disk is not the registry's fault
	n, err := r.ReadCloser.Read(p)
	r.watch.step(err != nil)
	if err != nil && !errors.Is(err, io.EOF) {
		err = final{err} // another attempt would read the same
	}
	return n, err
}
