package rotate

import (
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gantry/logs/watch"
)

func (r *reader) subscribe() error {
	w := r.options.Watcher
	if w == nil {
		var err error
		if w, err = watch.New(); err != nil {
			return err
		}
		r.own = w
	}
	var err error
	r.change, err = w.Subscribe(filepath.Dir(r.path))
	return err
}

// await waits until the log exists and collects all of it: what was written before we woke may fill several generations.
func (r *reader) await() error {
	r.options.Tail = -1
	for {
		ended := r.ended() // asked before the look, so that nothing written before the end is missed
		if err := r.collect(); err != nil || len(r.parts) > 0 {
			return err
		}
		if ended {
			return errStop
		}
		if err := r.wait(); err != nil {
			return err
		}
	}
}

// follow returns what is in p, what is appended to it and to the files that come after it, until the end.
func (r *reader) follow(p *part) error {
	for {
		ended := r.ended()
		rotated, err := r.rotated(p.id)
		if err != nil {
			return err
		}
		info, err := p.file.Stat() // after the look: a rotated file's size is final
		if err != nil {
			return err
		}
		if info.Size() < p.offset { // emptied: a log of one file begins again
			if p.offset, err = r.format.Start(p.file, info.Size()); err != nil {
				return err
			}
		}
		p.end = info.Size()
		if err := r.drain(p); err != nil {
			return err
		}
		if rotated {
			next, err := r.successor(p.id)
			if err != nil {
				return err
			}
			if next.file != nil {
				p.file.Close()
				*p = next
				continue
			}
		}
		if ended {
			return errStop
		}
		if err := r.wait(); err != nil {
			return err
		}
	}
}

// ended reports whether the container's last message is in the file.
func (r *reader) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// wait returns after the next change in the log's directory, or when the container ended.
func (r *reader) wait() error {
	var until <-chan time.Time
	if !r.options.Until.IsZero() {
		t := time.NewTimer(time.Until(r.options.Until))
		defer t.Stop()
		until = t.C
	}
	select {
	case <-r.ctx.Done():
		return errStop
	case <-until:
		return errStop
	case <-r.done:
		return nil
	case _, ok := <-r.change.C:
		if !ok {
			return errStop // the directory is gone: the container was removed
		}
		return nil
	}
}

// rotated reports whether another file is the active one.
func (r *reader) rotated(id identity) (bool, error) {
	active, err := os.Stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // in the middle of a rotation: its end wakes us
	}
	if err != nil {
		return false, err
	}
	return !id.is(identify(active)), nil
}

// successor opens the generation that followed the given file, or the oldest one if that file is gone. A part without a file says
// that a rotation came between: look again after the next change.
func (r *reader) successor(id identity) (part, error) {
	const attempts = 8 // rotations are seconds apart; more of them within one look mean that we are too slow anyway
	for range attempts {
		i, last := r.find(id)
		switch {
		case i == 0:
			return part{}, nil
		case i < 0: // rotated out of existence: take the oldest that is left
			i = last + 1
		}
		next, err := r.openPart(i - 1)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return part{}, err
		}
		if again, oldest := r.find(id); !id.is(next.id) && (again == i || again < 0 && oldest == last) {
			return next, nil
		}
		next.file.Close()
	}
	return part{}, nil
}

// find returns which generation the given file is now, or -1, and the oldest generation seen. A rotation moves files from i to i+1,
// the oldest first, so that this walk cannot miss one; it leaves a gap of one file meanwhile.
func (r *reader) find(id identity) (i, last int) {
	for i := 0; i <= last+gap+1 && i < maxFiles; i++ {
		other, err := r.identifyGeneration(i)
		if err != nil {
			continue
		}
		last = i
		if id.is(other) {
			return i, last
		}
	}
	return -1, last
}

func (r *reader) identifyGeneration(i int) (identity, error) {
	name := generation(r.path, i)
	info, err := os.Stat(name)
	if err == nil {
		return identify(info), nil
	}
	if i == 0 {
		return identity{}, err
	}
	file, err := os.Open(name + packed)
	if err != nil {
		return identity{}, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return identity{}, err
	}
	z, err := gzip.NewReader(file)
	if err != nil {
		return identity{}, err
	}
	return identifyPacked(z.Extra, info), nil
}
