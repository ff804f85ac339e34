package content

import (
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"

	"gantry/errdefs"
	"gantry/linux/dir"

	"github.com/opencontainers/go-digest"
)

const (
	noteEvery = 1 << 20   // bytes that come between two notes of what is there
	syncEvery = 256 << 20 // bytes that come before data and note are synced
)

// Ingest is a blob of known digest and size on its way in. Its parts come in any order, from any number of goroutines, and survive Close and the process: the next Ingest
// of that digest goes on. Each byte is hashed once, in order, as soon as there is no gap before it.
type Ingest struct {
	store  *Store
	digest digest.Digest
	size   int64
	file   *os.File
	base   string // path of the data; notes lie beside it
	begun  int64  // bytes that were here when it was opened

	hashMu sync.Mutex // guards the three below; taken before mu
	hash   hash.Hash
	hashed int64
	buf    []byte

	noting sync.Mutex // held while a note is written

	mu       sync.Mutex // guards all below
	changed  sync.Cond  // of what mu guards
	spans    spans
	unnoted  int64 // bytes since the last note
	unsynced int64 // bytes since the last sync
	resets   int
	takes    int64 // bytes, as Takes says
	whole    bool  // Commit succeeded
	failed   error // why nothing more comes
	closed   bool
}

// Ingest begins a blob, or goes on with what came of it before. At most one Ingest of a digest is open. Errors: Conflict, InvalidParameter.
func (s *Store) Ingest(d digest.Digest, size int64) (*Ingest, error) {
	if _, err := s.path(d); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "blob %s has a size of %d bytes", d, size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ingests[d] != nil {
		return nil, errdefs.New(errdefs.Conflict, "blob %s is on its way already", d)
	}
	i := &Ingest{store: s, digest: d, size: size, base: filepath.Join(s.root, "partial", d.Encoded())}
	i.changed.L = &i.mu
	file, err := os.OpenFile(i.base, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin blob: %w", refine(err))
	}
	i.file = file
	if err := i.resume(); err != nil {
		return nil, errors.Join(fmt.Errorf("begin blob: %w", err), file.Close(), os.Remove(i.base)) // without a note that can be believed it is of no use
	}
	i.begun = i.Received()
	s.ingests[d] = i
	return i, nil
}

// resume takes over what a note says is there.
func (i *Ingest) resume() error {
	st, err := i.file.Stat()
	if err != nil {
		return err
	}
	n, ok := readNote(i.base, i.size, st.Size())
	i.hash = sha256.New()
	if !ok {
		return errors.Join(removeNotes(i.base), i.file.Truncate(0))
	}
	i.spans = n.Spans
	if u, ok := i.hash.(encoding.BinaryUnmarshaler); ok && n.Hashed > 0 && u.UnmarshalBinary(n.Hash) == nil {
		i.hashed = n.Hashed
	} else {
		i.hash = sha256.New()
	}
	return nil
}

// Digest returns the digest that the blob is to have.
func (i *Ingest) Digest() digest.Digest { return i.digest }

// WriteAt stores a part. Parts that are written at the same time must not overlap.
func (i *Ingest) WriteAt(p []byte, offset int64) (int, error) {
	if offset < 0 || int64(len(p)) > i.size-offset {
		return 0, errdefs.New(errdefs.InvalidParameter, "blob %s has more than %d bytes", i.digest, i.size)
	}
	n, err := i.file.WriteAt(p, offset)
	i.mu.Lock()
	i.spans = i.spans.add(offset, offset+int64(n))
	i.unnoted += int64(n)
	note := i.unnoted >= noteEvery
	i.mu.Unlock()
	i.changed.Broadcast()
	if err != nil {
		return n, fmt.Errorf("write blob: %w", refine(err))
	}
	i.advance(p, offset)
	if note && i.noting.TryLock() {
		err = i.note(false)
		i.noting.Unlock()
	}
	return n, err
}

// advance hashes what has no gap before it. p is the part that came last. It hashes nothing while another goroutine does, which will see what came meanwhile.
func (i *Ingest) advance(p []byte, offset int64) {
	for i.behind() && i.hashMu.TryLock() {
		if i.hashed == offset {
			i.hash.Write(p)
			i.hashed += int64(len(p))
		}
		err := i.catchUp()
		i.hashMu.Unlock()
		if err != nil { // Verify will meet it again and tell
			return
		}
	}
}

func (i *Ingest) behind() bool {
	if !i.hashMu.TryLock() {
		return false
	}
	defer i.hashMu.Unlock()
	return i.hashed < i.Size()
}

// catchUp hashes from the file. The caller holds hashMu.
func (i *Ingest) catchUp() error {
	for {
		left := i.Size() - i.hashed
		if left <= 0 {
			return nil
		}
		if i.buf == nil {
			i.buf = make([]byte, 256<<10)
		}
		n, err := i.file.ReadAt(i.buf[:min(left, int64(len(i.buf)))], i.hashed)
		i.hash.Write(i.buf[:n])
		i.hashed += int64(n)
		if err != nil {
			return fmt.Errorf("read blob: %w", err)
		}
	}
}

// Size returns how many bytes there are from the beginning without a gap.
func (i *Ingest) Size() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.spans.prefix()
}

// Received returns how many bytes there are.
func (i *Ingest) Received() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.spans.sum()
}

// Takes says that the contents of the blob are going to take at least so many bytes elsewhere on the disk, little by little as it comes.
func (i *Ingest) Takes(n int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.takes = max(i.takes, n)
}

// outstanding returns how many bytes are still to come, and what of its contents is still to be put elsewhere.
func (i *Ingest) outstanding() (come, elsewhere int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	come, elsewhere = i.size-i.spans.sum(), i.takes
	if whole := i.size - i.begun; come < whole {
		elsewhere = int64(float64(elsewhere) * (float64(come) / float64(whole)))
	}
	return come, elsewhere
}

// Gap returns the first run of bytes at or after from that is missing; start is the blob's size where there is none.
func (i *Ingest) Gap(from int64) (start, end int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.spans.gap(from, i.size)
}

// Verify reports an error unless all is there and has the digest. Errors: Unavailable when something is missing, InvalidParameter when the digest is another.
func (i *Ingest) Verify() error {
	i.hashMu.Lock()
	defer i.hashMu.Unlock()
	if err := i.catchUp(); err != nil {
		return err
	}
	if i.hashed != i.size {
		return errdefs.New(errdefs.Unavailable, "blob %s has %d bytes instead of %d", i.digest, i.hashed, i.size)
	}
	if got := digest.NewDigest(digest.SHA256, i.hash); got != i.digest {
		return errdefs.New(errdefs.InvalidParameter, "blob has digest %s instead of %s", got, i.digest)
	}
	return nil
}

// Reset drops what came, to begin anew. Those who follow get an error. No WriteAt may be under way.
func (i *Ingest) Reset() error {
	i.noting.Lock()
	defer i.noting.Unlock()
	i.hashMu.Lock()
	defer i.hashMu.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.resets++
	i.spans, i.unnoted, i.unsynced = nil, 0, 0
	i.hash, i.hashed = sha256.New(), 0
	i.changed.Broadcast()
	if err := errors.Join(removeNotes(i.base), i.file.Truncate(0)); err != nil { // a note must never speak of data that is gone
		return fmt.Errorf("reset blob: %w", err)
	}
	return nil
}

// Fail tells those who follow that nothing more comes.
func (i *Ingest) Fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failed = err
	i.changed.Broadcast()
}

// Commit gives the blob its name, once it is verified. It is not durable before Sync, which is due before a Commit, too: a process that is killed
// between a Commit and the record that names the blob loses the blob.
func (i *Ingest) Commit() error {
	if err := i.Verify(); err != nil {
		return err
	}
	path, err := i.store.path(i.digest)
	if err != nil {
		return err
	}
	i.noting.Lock()
	defer i.noting.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.whole {
		return nil
	}
	if err := os.Rename(i.base, path); err != nil {
		return fmt.Errorf("commit blob: %w", refine(err))
	}
	i.whole = true
	i.changed.Broadcast()
	_ = removeNotes(i.base) // Sweep takes what is left; without the data they are believed by nobody
	return nil
}

// Drop closes the ingest and forgets what came.
func (i *Ingest) Drop() error {
	i.mu.Lock()
	whole := i.whole
	i.mu.Unlock()
	if whole { // it is a blob of the store's by now, and not to be touched
		return i.Close()
	}
	return errors.Join(i.Reset(), i.Close())
}

// Close makes what came durable, for the next Ingest of the digest, unless Commit has. Those who follow get an error where something is missing.
func (i *Ingest) Close() error {
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return nil
	}
	i.closed = true
	whole, empty := i.whole, len(i.spans) == 0
	i.mu.Unlock()
	i.changed.Broadcast()
	var err error
	switch {
	case whole:
	case empty:
		err = errors.Join(removeNotes(i.base), os.Remove(i.base))
	default:
		i.noting.Lock()
		err = i.note(true)
		i.noting.Unlock()
		if err != nil { // without a note the data is of no use, and on a full disk its place is
			err = errors.Join(err, removeNotes(i.base), os.Remove(i.base))
		}
	}
	err = errors.Join(err, i.file.Close())
	i.store.mu.Lock()
	defer i.store.mu.Unlock()
	delete(i.store.ingests, i.digest)
	if err != nil {
		return fmt.Errorf("close blob: %w", err)
	}
	return nil
}

// note writes down what is there. A durable note follows a sync of the data; another is believed only until the machine starts anew. The caller holds noting.
func (i *Ingest) note(durable bool) error {
	i.mu.Lock()
	i.unsynced += i.unnoted
	i.unnoted = 0
	durable = durable || i.unsynced >= syncEvery
	if durable {
		i.unsynced = 0
	}
	i.mu.Unlock()
	// The hash first: what it covers is in the spans that are read after it.
	i.hashMu.Lock()
	n := note{Size: i.size, Boot: i.store.boot, Hashed: i.hashed}
	var err error
	if m, ok := i.hash.(encoding.BinaryMarshaler); ok && i.hashed > 0 {
		n.Hash, err = m.MarshalBinary()
	}
	i.hashMu.Unlock()
	if err != nil {
		return fmt.Errorf("note blob: %w", err)
	}
	i.mu.Lock()
	n.Spans = append(spans(nil), i.spans...)
	i.mu.Unlock()
	if durable {
		if err := dir.SyncData(i.file); err != nil {
			return fmt.Errorf("sync blob: %w", refine(err))
		}
	}
	if err := n.write(i.base, durable); err != nil {
		return fmt.Errorf("note blob: %w", refine(err))
	}
	return nil
}

// ErrRestarted is what a follower gets whose blob is being written anew.
var ErrRestarted = errors.New("blob is being fetched anew")

// Follow returns a reader of the blob that waits for what has not come yet, up to the end of ctx. What it reads is not verified before Commit.
func (i *Ingest) Follow(ctx context.Context) (io.ReadCloser, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	path := i.base
	if i.whole {
		var err error
		if path, err = i.store.path(i.digest); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("follow blob: %w", err)
	}
	stop := context.AfterFunc(ctx, i.changed.Broadcast)
	return &follower{i: i, ctx: ctx, stop: stop, file: f, resets: i.resets}, nil
}

type follower struct {
	i      *Ingest
	ctx    context.Context //nolint:containedctx // lives for one reading
	stop   func() bool
	file   *os.File
	offset int64
	resets int
}

func (f *follower) Read(p []byte) (int, error) {
	left, err := f.wait()
	if err != nil {
		return 0, err
	}
	n, err := f.file.ReadAt(p[:min(int64(len(p)), left)], f.offset)
	f.offset += int64(n)
	if errors.Is(err, io.EOF) { // cut off by a Reset since; the next Read tells
		err = nil
	}
	return n, err
}

// wait returns how many bytes there are to read, at least one.
func (f *follower) wait() (int64, error) {
	i := f.i
	i.mu.Lock()
	defer i.mu.Unlock()
	for {
		have := i.spans.prefix()
		switch {
		case f.ctx.Err() != nil:
			return 0, errdefs.With(errdefs.Canceled, context.Cause(f.ctx))
		case i.resets != f.resets:
			return 0, ErrRestarted
		case have > f.offset:
			return have - f.offset, nil
		case have == i.size:
			return 0, io.EOF
		case i.failed != nil:
			return 0, i.failed
		case i.closed:
			return 0, errdefs.New(errdefs.Unavailable, "blob %s was dropped", i.digest)
		}
		i.changed.Wait()
	}
}

func (f *follower) Close() error {
	f.stop()
	return f.file.Close()
}
