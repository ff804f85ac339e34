package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"gantry/errdefs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

const (
	defaultChunk = 8 << 20 // bytes of a range, where several come at once
	aloneChunks  = 8       // chunks of a range, where only one comes
	maxRanges    = 16      // of one blob at once
	realProgress = 64 << 10
)

// Sink takes in a blob, in parts that come in any order from several goroutines. What it has got already is not fetched again.
type Sink interface {
	io.WriterAt
	Gap(from int64) (start, end int64) // the first run of bytes at or after from that is missing; start is the blob's size when there is none
	Verify() error                     // nil when all is there and has the digest; of kind InvalidParameter when the digest is another
	Reset() error                      // drop everything
}

// Blob fetches what the sink lacks of a blob and verifies it. A large blob comes in several ranges at once where the registry can do that and there are streams to spare.
// A connection that stalls or breaks is taken up where it ended. Errors: NotFound, Unauthorized, Forbidden, Unavailable; InvalidParameter when the registry sends another blob.
func (r *Repository) Blob(ctx context.Context, d ocispec.Descriptor, to Sink) error {
	if err := r.client.streams.acquire(ctx); err != nil {
		return err
	}
	defer r.client.streams.release()
	return r.blob(ctx, d, to)
}

// ReadBlob returns a small blob, which is fetched at once whatever other streams there are.
func (r *Repository) ReadBlob(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit || d.Size < 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "blob %s has %d bytes, and %d are allowed", d.Digest, d.Size, limit)
	}
	m := &memory{d: d}
	if err := r.blob(ctx, d, m); err != nil {
		return nil, err
	}
	return m.data, nil
}

// memory is a sink for one stream from the beginning.
type memory struct {
	d    ocispec.Descriptor
	data []byte
}

func (m *memory) WriteAt(p []byte, offset int64) (int, error) {
	if offset != int64(len(m.data)) || int64(len(p)) > m.d.Size-offset {
		return 0, errdefs.New(errdefs.InvalidParameter, "blob %s has more than %d bytes", m.d.Digest, m.d.Size)
	}
	m.data = append(m.data, p...)
	return len(p), nil
}

func (m *memory) Gap(from int64) (start, end int64) { return max(from, int64(len(m.data))), m.d.Size }

func (m *memory) Verify() error {
	if got := digest.FromBytes(m.data); got != m.d.Digest {
		return errdefs.New(errdefs.InvalidParameter, "blob has digest %s instead of %s", got, m.d.Digest)
	}
	return nil
}

func (m *memory) Reset() error { m.data = nil; return nil }

// blob goes through the hosts until one has sent the blob.
func (r *Repository) blob(ctx context.Context, d ocispec.Descriptor, to Sink) error {
	ref := d.Digest.String()
	return r.each(ctx, ref, func(h *host) error { return h.serves(ref) }, func(h *host) error { return r.blobFrom(ctx, h, d, to) })
}

// blobFrom fetches what is missing from one host. When it all adds up to another blob, and some of it came from elsewhere or before, the host gets one chance to send it all.
func (r *Repository) blobFrom(ctx context.Context, h *host, d ocispec.Descriptor, to Sink) error {
	missing, end := to.Gap(0)
	mixed := d.Size > 0 && (missing != 0 || end != d.Size)
	for {
		if err := r.fetch(ctx, h, d, to); err != nil {
			return err
		}
		err := to.Verify()
		if !errdefs.Is(err, errdefs.InvalidParameter) {
			return err
		}
		if err := to.Reset(); err != nil {
			return err
		}
		if !mixed {
			return errdefs.New(errdefs.InvalidParameter, "verification failed for digest %s: registry %s sent something else: try again, or tell those who run it: %w", d.Digest, h.name, err)
		}
		r.client.c.Log.Warn("blob is fetched anew", "registry", h.name, "blob", d.Digest.String(), "error", err)
		mixed = false
	}
}

// fetch is the work of fetching what is missing of one blob from one host.
type fetch struct {
	*Repository
	h  *host
	d  ocispec.Descriptor
	to Sink

	mu      sync.Mutex // guards all below
	next    int64      // all before it is here or somebody's part
	back    []part     // parts that were given up
	workers int
	ranges  bool // the host has sent a range that was asked for
	whole   bool // the host cannot send ranges, or not several at once: one stream at a time
}

// part is a run of bytes that one worker fetches: from the first up to, not including, the second.
type part struct{ start, end int64 }

// fetch fetches what is missing. The caller has a stream.
func (r *Repository) fetch(ctx context.Context, h *host, d ocispec.Descriptor, to Sink) error {
	f := &fetch{Repository: r, h: h, d: d, to: to}
	_, f.whole = to.(*memory) // which takes no part before those in front of it
	for {
		group, groupCtx := errgroup.WithContext(ctx)
		f.workers = 1
		group.Go(func() error { return f.work(groupCtx, group) })
		if err := group.Wait(); err != nil {
			return err
		}
		if len(f.back) == 0 {
			return nil
		}
	}
}

// work fetches part after part, and lets others help where there are streams to spare.
func (f *fetch) work(ctx context.Context, group *errgroup.Group) error {
	for {
		p, ok := f.take()
		if !ok {
			return nil
		}
		if err := f.part(ctx, p, group, false); err != nil {
			return err
		}
	}
}

// help is work with a spare stream, which it gives back as soon as somebody waits for one. A part that it cannot get is left to the worker that began.
func (f *fetch) help(ctx context.Context, group *errgroup.Group) error {
	defer f.client.streams.release()
	for !f.client.streams.wanted() {
		p, ok := f.take()
		if !ok {
			break
		}
		if err := f.part(ctx, p, group, true); err != nil {
			if ctx.Err() != nil {
				return err
			}
			f.client.c.Log.Warn("range of a blob failed: going on with one stream", "registry", f.h.name, "blob", f.d.Digest.String(), "error", err)
			f.giveBack(p)
			break
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.workers--
	return nil
}

// giveBack gives up a part, of which some may be here.
func (f *fetch) giveBack(p part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole = true
	for at := p.start; at < p.end; {
		start, end := f.to.Gap(at)
		if start >= p.end {
			return
		}
		f.back = append(f.back, part{start, min(end, p.end)})
		at = end
	}
}

// take returns the next part that is missing and nobody's. Parts are taken in order, so that who follows the blob from its beginning goes on.
func (f *fetch) take() (part, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.back) > 0 && f.workers == 1 {
		p := f.back[0]
		f.back = f.back[1:]
		return p, true
	}
	start, end := f.to.Gap(f.next)
	if start >= f.d.Size {
		f.next = f.d.Size
		return part{}, false
	}
	chunk := f.client.c.Chunk
	switch streams := f.client.streams; {
	case f.whole || streams.single() || end-start <= 2*chunk: // a second request costs more than it brings
	case f.ranges && f.workers == 1 && streams.Full():
		end = min(end, start+aloneChunks*chunk)
	default:
		end = min(end, start+chunk)
	}
	f.next = end
	return part{start, end}, true
}

// recruit starts helpers for what is not taken yet, as far as there are streams to spare.
func (f *fetch) recruit(ctx context.Context, group *errgroup.Group) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ranges = true
	for !f.whole && f.workers < maxRanges {
		left := f.d.Size - f.next
		if start, _ := f.to.Gap(f.next); start >= f.d.Size || left < int64(f.workers)*f.client.c.Chunk/2 || !f.client.streams.spare() {
			return
		}
		f.workers++
		group.Go(func() error { return f.help(ctx, group) })
	}
}

// part fetches a part, with as many attempts in a row that bring nothing as are allowed. A helper has two.
func (f *fetch) part(ctx context.Context, p part, group *errgroup.Group, helper bool) error {
	budget := f.client.budget(f.h.attempts())
	if helper {
		budget.attempts = 2
	}
	for {
		n, err := f.stream(ctx, &p, group, helper)
		p.start += n
		if err == nil {
			return nil
		}
		if n >= realProgress {
			budget.progress()
		}
		if last := budget.again(ctx, err); last != nil {
			if ctx.Err() != nil || errdefs.Is(last, errdefs.Exhausted) {
				return last
			}
			return f.explain(last, p)
		}
	}
}

// explain says which blob of which registry failed where, and what can be done.
func (f *fetch) explain(err error, p part) error {
	kind := errdefs.KindOf(err)
	if temporary(err) {
		return errdefs.New(errdefs.Unavailable, "fetch blob %s from registry %s: at byte %d of %d: %w: check the network and try again: what has come is kept", f.d.Digest, f.h.name, p.start, f.d.Size, err)
	}
	return errdefs.New(kind, "fetch blob %s from registry %s: %w", f.d.Digest, f.h.name, err)
}

// stream asks for a part and stores what comes of it, n bytes from its start. Where the host sends the whole blob instead, the part may become all that is missing.
func (f *fetch) stream(ctx context.Context, p *part, group *errgroup.Group, helper bool) (n int64, err error) {
	if p.start == p.end {
		return 0, nil
	}
	header := http.Header{}
	if f.wantsRange(*p) {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", p.start, p.end-1))
	}
	resp, err := f.h.do(ctx, request{method: http.MethodGet, path: f.path + "/blobs/" + f.d.Digest.String(), header: header, scope: f.scope(), once: true})
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	var skip int64
	switch resp.StatusCode {
	case http.StatusOK:
		if helper { // the worker that began reads it all anyway
			return 0, final{errdefs.With(errdefs.Unavailable, errRange)}
		}
		skip = p.start
		f.spread(p)
	case http.StatusPartialContent:
		if !rangeFits(resp.Header.Get("Content-Range"), p.start, p.end, f.d.Size) {
			f.noRanges()
			return 0, errdefs.With(errdefs.Unavailable, errRange)
		}
		f.recruit(ctx, group)
	case http.StatusRequestedRangeNotSatisfiable:
		f.noRanges()
		return 0, errdefs.New(errdefs.Unavailable, "%w: %w", errRange, answer(resp))
	default:
		return 0, answer(resp)
	}
	body := newStallReader(ctx, resp.Body, f.client.c.Stall)
	defer body.stop()
	return f.receive(body, *p, skip)
}

// wantsRange reports whether a part is asked for as a range.
func (f *fetch) wantsRange(p part) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return (p.start > 0 || p.end < f.d.Size) && (!f.whole || f.ranges)
}

// noRanges takes note that the host's ranges are not to be relied on.
func (f *fetch) noRanges() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole, f.ranges = true, false
}

// spread makes the part of a lone worker all that is left: the host sends it anyway.
func (f *fetch) spread(p *part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.start > 0 || p.end < f.d.Size {
		f.whole, f.ranges = true, false
	}
	if p.end < f.d.Size && f.workers == 1 && len(f.back) == 0 && p.end == f.next {
		p.end, f.next = f.d.Size, f.d.Size
	}
}

// receive stores what a body has of a part, after skip bytes of it, and returns how far that came. What the sink has already is left alone.
func (f *fetch) receive(body io.Reader, p part, skip int64) (n int64, err error) {
	buf := make([]byte, 256<<10)
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{io.LimitReader(body, skip)}, buf); err != nil {
		return 0, errdefs.With(errdefs.Unavailable, err)
	}
	for at := p.start; ; {
		read, rerr := body.Read(buf)
		if at+int64(read) > f.d.Size {
			return at - p.start, errdefs.New(errdefs.InvalidParameter, "blob has more than %d bytes", f.d.Size)
		}
		read = int(min(int64(read), p.end-at))
		if err := f.store(buf[:read], at); err != nil {
			return at - p.start, err
		}
		at += int64(read)
		switch {
		case at == p.end && p.end < f.d.Size: // what follows is somebody else's
			return at - p.start, nil
		case errors.Is(rerr, io.EOF) && at == p.end:
			return at - p.start, nil
		case errors.Is(rerr, io.EOF):
			return at - p.start, errdefs.New(errdefs.Unavailable, "answer ended after %d of %d bytes: %w", at-p.start, p.end-p.start, io.ErrUnexpectedEOF)
		case rerr != nil:
			return at - p.start, errdefs.With(errdefs.Unavailable, rerr)
		}
	}
}

// store writes what the sink lacks of some bytes.
func (f *fetch) store(data []byte, at int64) error {
	end := at + int64(len(data))
	for at < end {
		start, gapEnd := f.to.Gap(at)
		if start >= end {
			return nil
		}
		gapEnd = min(gapEnd, end)
		if _, err := f.to.WriteAt(data[len(data)-int(end-start):len(data)-int(end-gapEnd)], start); err != nil {
			return final{err}
		}
		at = gapEnd
	}
	return nil
}

// rangeFits checks a Content-Range header, "bytes 5-9/10", against what was asked for: bytes from start up to end of size. Fewer may come.
func rangeFits(header string, start, end, size int64) bool {
	span, ok := strings.CutPrefix(header, "bytes ")
	if !ok {
		return false
	}
	span, total, _ := strings.Cut(span, "/")
	first, last, ok := strings.Cut(span, "-")
	if n, err := strconv.ParseInt(first, 10, 64); !ok || err != nil || n != start {
		return false
	}
	if n, err := strconv.ParseInt(last, 10, 64); err != nil || n < start || n >= end {
		return false
	}
	n, err := strconv.ParseInt(total, 10, 64)
	return total == "*" || err == nil && n == size
}
