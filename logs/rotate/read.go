package rotate

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"gantry/logs/record"
	"gantry/logs/watch"
)

// Format knows the records of one file. An instance serves one file after the other.
type Format interface {
	// Start reads what stands before the first record and returns where that begins.
	Start(f io.ReaderAt, size int64) (offset int64, err error)
	// Next returns the length of the record at the beginning of b, or 0 when b does not hold all of it.
	Next(b []byte) (int, error)
	// Decode reads one record. false: it is damaged, skip it. The entry may refer to b.
	Decode(b []byte, e *record.Entry, details bool) bool
	// Tail returns where the last n records begin, and how many there are if fewer; start is what Start returned.
	Tail(f io.ReaderAt, start, size int64, n int) (offset int64, found int, err error)
	// Since returns an offset of a record before which no record is of time t or later.
	Since(f io.ReaderAt, start, size int64, t time.Time) (int64, error)
}

const (
	blockSize = 64 << 10
	maxRecord = 4 << 20 // a longer record is damage
	maxFiles  = 10_000  // generations that are looked for
	gap       = 1       // how many generations in a row a rotation in progress may hide: it moves one at a time, the oldest first
)

// Read returns the records of the log at path, oldest first.
func Read(ctx context.Context, path string, format func() Format, o record.ReadOptions, done <-chan struct{}) iter.Seq2[record.Entry, error] {
	return func(yield func(record.Entry, error) bool) {
		r := &reader{ctx: ctx, path: path, format: format(), options: o, done: done, yield: yield}
		defer r.close()
		if err := r.run(); err != nil && !errors.Is(err, errStop) {
			yield(record.Entry{}, fmt.Errorf("read log %s: %w", filepath.Base(path), err))
		}
	}
}

// errStop ends a read without an error: the consumer has enough, or the last wanted record has been returned.
var errStop = errors.New("stop")

type reader struct {
	ctx     context.Context //nolint:containedctx // lives for one call of Read
	path    string
	format  Format
	options record.ReadOptions
	done    <-chan struct{}
	yield   func(record.Entry, error) bool

	parts  []part // that are still to be read, newest first
	buf    []byte // block being decoded
	entry  record.Entry
	change *watch.Subscription
	own    *watch.Watcher // ends with the read
}

// part is one generation.
type part struct {
	file        *os.File // the generation, or an unpacked copy
	id          identity
	modified    time.Time
	offset, end int64 // what of it is to be read
}

func (r *reader) close() {
	for _, p := range r.parts {
		p.file.Close()
	}
	if r.change != nil {
		r.change.Close()
	}
	if r.own != nil {
		r.own.Close()
	}
}

func (r *reader) run() error {
	if r.options.Follow {
		if err := r.subscribe(); err != nil {
			return err
		}
	}
	if err := r.collect(); err != nil {
		return err
	}
	if len(r.parts) == 0 {
		if !r.options.Follow {
			return nil
		}
		if err := r.await(); err != nil {
			return err
		}
	}
	for len(r.parts) > 1 {
		p := &r.parts[len(r.parts)-1]
		if err := r.drain(p); err != nil {
			return err
		}
		p.file.Close()
		r.parts = r.parts[:len(r.parts)-1]
	}
	if r.options.Follow {
		return r.follow(&r.parts[0])
	}
	return r.drain(&r.parts[0])
}

// collect opens the generations that have wanted records, the active file first: what rotates meanwhile is then seen twice, not never.
func (r *reader) collect() error {
	want := r.options.Tail
	for i, last := 0, 0; i <= last+gap+1 && i < maxFiles && want != 0; i++ {
		p, err := r.openPart(i)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		last = i
		if n := len(r.parts); n > 0 && r.parts[n-1].id.is(p.id) {
			p.file.Close()
			continue
		}
		r.parts = append(r.parts, p)
		oldest := &r.parts[len(r.parts)-1]
		if i > 0 && !r.options.Since.IsZero() && oldest.modified.Before(r.options.Since) {
			oldest.offset = oldest.end // nothing in it is as late
			break
		}
		start := oldest.offset
		if want > 0 {
			offset, found, err := r.format.Tail(oldest.file, start, oldest.end, want)
			if err != nil {
				return err
			}
			oldest.offset = offset
			want -= found
		}
		if !r.options.Since.IsZero() {
			offset, err := r.format.Since(oldest.file, start, oldest.end, r.options.Since)
			if err != nil {
				return err
			}
			oldest.offset = max(oldest.offset, offset)
			if offset > start {
				break // it begins before that time, so do the older ones
			}
		}
	}
	if r.options.Tail == 0 && r.options.Follow { // begin at the end
		p, err := r.openPart(0)
		if errors.Is(err, fs.ErrNotExist) {
			p, err = r.openPart(1) // between two steps of a rotation
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		p.offset = p.end
		r.parts = append(r.parts, p)
	}
	return nil
}

// openPart opens generation i, unpacked if need be.
func (r *reader) openPart(i int) (part, error) {
	name := generation(r.path, i)
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && i > 0 {
		return r.openPacked(name + packed)
	}
	if err != nil {
		return part{}, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return part{}, err
	}
	return r.begin(part{file: file, id: identify(info), modified: info.ModTime(), end: info.Size()})
}

// openPacked decompresses a generation into a file without a name.
func (r *reader) openPacked(name string) (part, error) {
	from, err := os.Open(name)
	if err != nil {
		return part{}, err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return part{}, err
	}
	z, err := gzip.NewReader(from)
	if err != nil {
		return part{}, err
	}
	out, err := os.CreateTemp("", "gantry-log-*")
	if err != nil {
		return part{}, err
	}
	os.Remove(out.Name())
	size, err := io.Copy(out, z)
	if err != nil {
		out.Close()
		return part{}, err
	}
	return r.begin(part{file: out, id: identifyPacked(z.Extra, info), modified: info.ModTime(), end: size})
}

// begin finds the first record of p, and closes p if that fails.
func (r *reader) begin(p part) (part, error) {
	start, err := r.format.Start(p.file, p.end)
	if err != nil {
		p.file.Close()
		return part{}, err
	}
	p.offset, p.end = start, max(start, p.end)
	return p, nil
}

// drain returns the records of p from offset to end and leaves offset after the last whole one.
func (r *reader) drain(p *part) error {
	if cap(r.buf) == 0 {
		r.buf = make([]byte, blockSize)
	}
	held := 0 // bytes of an incomplete record at the beginning of buf
	at := p.offset
	for at < p.end {
		if err := r.ctx.Err(); err != nil {
			return errStop
		}
		n, err := p.file.ReadAt(r.buf[held:min(int64(len(r.buf)), int64(held)+p.end-at)], at)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		at += int64(n)
		b := r.buf[:held+n]
		for {
			size, err := r.format.Next(b)
			if err != nil { // damage: nothing after it in this file makes sense
				p.offset = p.end
				return nil
			}
			if size == 0 {
				break
			}
			if err := r.emit(b[:size]); err != nil {
				return err
			}
			b = b[size:]
			p.offset += int64(size)
		}
		held = len(b)
		copy(r.buf, b)
		if held == len(r.buf) {
			if len(r.buf) >= maxRecord {
				p.offset = p.end
				return nil
			}
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
	}
	return nil
}

func (r *reader) emit(b []byte) error {
	e := &r.entry
	e.Partial = nil
	e.Attributes = e.Attributes[:0]
	if !r.format.Decode(b, e, r.options.Details) {
		return nil
	}
	o := &r.options
	if !o.Since.IsZero() && e.Time.Before(o.Since) {
		return nil
	}
	if !o.Until.IsZero() && e.Time.After(o.Until) {
		return errStop
	}
	if e.Stream == record.Stderr && !o.Stderr || e.Stream == record.Stdout && !o.Stdout {
		return nil
	}
	if !r.yield(*e, nil) {
		return errStop
	}
	return nil
}
