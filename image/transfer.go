package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"gantry/content"
	"gantry/errdefs"
	"gantry/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// transfer is a blob on its way in, which any number of pulls share. It ends when the blob is here, when all sources have failed, or when the last pull has left.
type transfer struct {
	descriptor ocispec.Descriptor
	ingest     *content.Ingest
	resumed    bool               // something of it was here
	ctx        context.Context    //nolint:containedctx // of all pulls that share it, which come and go
	cancel     context.CancelFunc // ends ctx
	begin      sync.Once          // starts the download
	over       chan struct{}      // closed when the download has ended
	err        error              // why it failed; set before over is closed
	gone       chan struct{}      // closed when the ingest is closed
	again      atomic.Int64       // until when it waits before it tries again, in Unix nanoseconds

	mu      sync.Mutex // guards all below
	users   int        // 0: it is being closed
	sources []*registry.Repository
	tried   int  // of sources
	dry     bool // all sources have failed
	suspect bool // what came is not to be kept
}

// transfers are the blobs that are on their way in.
type transfers struct {
	mu   sync.Mutex // guards what is below; taken before a transfer's
	byID map[digest.Digest]*transfer
}

// join returns the transfer of a blob, which a pull shares until it leaves; from is where the pull would have it from. The download has not begun if the pull is the first.
func (s *Service) join(ctx context.Context, d ocispec.Descriptor, from *registry.Repository) (*transfer, error) {
	for {
		t, ours, err := s.tryJoin(ctx, d, from)
		if ours || err != nil {
			return t, err
		}
		select { // it is ending
		case <-t.gone:
		case <-ctx.Done():
			return nil, errdefs.With(errdefs.Canceled, context.Cause(ctx))
		}
	}
}

func (s *Service) tryJoin(ctx context.Context, d ocispec.Descriptor, from *registry.Repository) (t *transfer, ours bool, err error) {
	s.transfers.mu.Lock()
	defer s.transfers.mu.Unlock()
	if t := s.transfers.byID[d.Digest]; t != nil {
		return t, t.descriptor.Size == d.Size && t.enter(from), nil // a manifest that lies about a size is not to spoil another's pull
	}
	ingest, err := s.content.Ingest(d.Digest, d.Size)
	if err != nil {
		return nil, false, err
	}
	t = &transfer{descriptor: d, ingest: ingest, resumed: ingest.Received() > 0, over: make(chan struct{}), gone: make(chan struct{}), users: 1, sources: []*registry.Repository{from}}
	t.ctx, t.cancel = context.WithCancel(registry.OnWait(context.WithoutCancel(ctx), func(wait time.Duration) { t.again.Store(time.Now().Add(wait).UnixNano()) }))
	s.transfers.byID[d.Digest] = t
	return t, true, nil
}

// enter counts one more user, unless the transfer is ending.
func (t *transfer) enter(from *registry.Repository) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 || t.dry {
		return false
	}
	t.users++
	t.sources = append(t.sources, from)
	return true
}

// leave ends a pull's share. The last one ends the download; what came is kept for the next.
func (s *Service) leave(t *transfer) error {
	if !t.exit() {
		return nil
	}
	t.cancel()
	t.begin.Do(func() { close(t.over) })
	<-t.over
	var err error
	if t.suspect {
		err = t.ingest.Drop()
	} else {
		err = t.ingest.Close()
	}
	s.transfers.mu.Lock()
	defer s.transfers.mu.Unlock()
	delete(s.transfers.byID, t.descriptor.Digest)
	close(t.gone)
	return err
}

func (s *Service) leaveAll(all []*transfer) (err error) {
	for _, t := range all {
		err = errors.Join(err, s.leave(t))
	}
	return err
}

// exit counts one user less and reports whether that was the last.
func (t *transfer) exit() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users--
	return t.users == 0
}

// doubt has what came dropped at the end.
func (t *transfer) doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.suspect = true
}

// start begins the download unless it has begun.
func (t *transfer) start() {
	t.begin.Do(func() {
		go func() {
			defer close(t.over)
			if t.err = t.run(); t.err != nil {
				t.ingest.Fail(t.err)
			}
		}()
	})
}

// run asks one source after the other.
func (t *transfer) run() error {
	var first error
	for {
		from := t.source()
		if from == nil {
			return first
		}
		err := from.Blob(t.ctx, t.descriptor, t.ingest)
		if err == nil || t.ctx.Err() != nil || errdefs.Is(err, errdefs.Exhausted) {
			return err
		}
		if first == nil {
			first = err
		}
	}
}

// source returns the next source, or nil.
func (t *transfer) source() *registry.Repository {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tried == len(t.sources) {
		t.dry = true
		return nil
	}
	t.tried++
	return t.sources[t.tried-1]
}

const (
	progressEvery = 100 * time.Millisecond
	silence       = time.Second // after the last byte; then a wait for the next attempt is worth a word, since no other part of the blob comes meanwhile
)

// retrying is how a wait is told, in Docker's words.
func retrying(wait time.Duration) string {
	if n := (wait + time.Second - 1) / time.Second; n != 1 {
		return fmt.Sprintf("Retrying in %d seconds", n)
	}
	return "Retrying in 1 second"
}

// await waits for a transfer and tells how it goes.
func (p *puller) await(ctx context.Context, t *transfer) error {
	id, total := short(t.descriptor.Digest), t.descriptor.Size
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	var (
		word string    // of the wait that was told last
		last time.Time // when something came
	)
	for said := int64(-1); ; {
		select {
		case <-ctx.Done():
			return errdefs.With(errdefs.Canceled, context.Cause(ctx))
		case now := <-tick.C:
			if received := t.ingest.Received(); received != said {
				if said, word = received, ""; received > 0 {
					last = now
				}
				p.say(Progress{ID: id, Status: "Downloading", Current: received, Total: total})
			} else if wait := time.Unix(0, t.again.Load()).Sub(now); wait > 0 && now.Sub(last) >= silence && retrying(wait) != word {
				word = retrying(wait)
				p.say(Progress{ID: id, Status: word})
			}
		case <-t.over:
			if t.err == nil {
				p.say(Progress{ID: id, Status: "Verifying Checksum"})
				p.say(Progress{ID: id, Status: "Download complete"})
			}
			return t.err
		}
	}
}

// here reports whether the download has ended well.
func (t *transfer) here() bool {
	select {
	case <-t.over:
		return t.err == nil
	default:
		return false
	}
}

// commit gives the blobs of transfers their names. They are synced before: a process that is killed between a name and the record that names it loses the blob.
func (s *Service) commit(all []*transfer) error {
	if len(all) == 0 {
		return nil
	}
	if err := s.content.Sync(); err != nil {
		return err
	}
	for _, t := range all {
		if err := t.ingest.Commit(); err != nil {
			return err
		}
		s.acquit(t.descriptor.Digest)
	}
	return nil
}

// extracting tells how far the unpacking of a layer has come, once its download has ended.
type extracting struct {
	io.ReadCloser
	p    *puller
	t    *transfer // nil: the blob was here
	d    ocispec.Descriptor
	read int64
	said time.Time
}

func (r *extracting) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.read += int64(n)
	ended := errors.Is(err, io.EOF) && r.read == r.d.Size
	if now := time.Now(); (ended || now.Sub(r.said) >= progressEvery) && (r.t == nil || r.t.here()) {
		r.said = now
		r.p.say(Progress{ID: short(r.d.Digest), Status: "Extracting", Current: r.read, Total: r.d.Size})
	}
	return n, err
}
