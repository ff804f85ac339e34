package content

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gantry/linux/dir"

	"github.com/opencontainers/go-digest"
)

// A partial blob is three files in <root>/partial: <hex> has the data, <hex>.recent says what is there as of now, and <hex>.synced what is there for certain. The
// first is believed until the machine starts anew: what a killed process wrote is in the kernel's hands. The second is written when the data was synced before.

const (
	recentSuffix = ".recent"
	syncedSuffix = ".synced"

	// PartialLife is how long what came of a blob is kept for a download that goes on.
	PartialLife = 7 * 24 * time.Hour

	maxNote  = 1 << 20 // bytes
	maxSpans = 10000
)

// note says what is there of a blob.
type note struct {
	Size   int64  `json:"size"` // of the whole blob
	Boot   string `json:"boot"` // which run of the machine
	Spans  spans  `json:"spans"`
	Hashed int64  `json:"hashed"` // bytes from the beginning that Hash covers
	Hash   []byte `json:"hash,omitempty"`
}

// bootID tells one run of the machine from another; empty where the kernel does not say.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// write stores the note beside the data, in place of an older one.
func (n note) write(base string, durable bool) error {
	path := base + recentSuffix
	if durable {
		path = base + syncedSuffix
	}
	if err := n.writeAs(path, path+newSuffix, durable); err != nil {
		_ = os.Remove(path + newSuffix) // what is half written is of no use
		return err
	}
	if !durable {
		return nil
	}
	if err := os.Remove(base + recentSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) { // it knows less
		return err
	}
	return nil
}

func (n note) writeAs(path, anew string, durable bool) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(anew, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if durable && err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(anew, path)
}

// readNote returns the best note that can be believed of a blob of size bytes, of which a file of have bytes is there.
func readNote(base string, size, have int64) (note, bool) {
	boot := bootID()
	for _, suffix := range []string{recentSuffix, syncedSuffix} {
		n, err := parseNoteFile(base + suffix)
		if err != nil || n.Size != size || suffix == recentSuffix && (n.Boot != boot || boot == "") {
			continue
		}
		if len(n.Spans) == 0 || n.Spans[len(n.Spans)-1][1] > have {
			continue
		}
		return n, true
	}
	return note{}, false
}

func parseNoteFile(path string) (note, error) {
	f, err := os.Open(path)
	if err != nil {
		return note{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxNote+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return note{}, err
	}
	return parseNote(data)
}

// parseNote decodes and checks a note.
func parseNote(data []byte) (note, error) {
	var n note
	if len(data) > maxNote {
		return n, fmt.Errorf("note has more than %d bytes", maxNote)
	}
	if err := json.Unmarshal(data, &n); err != nil {
		return note{}, err
	}
	if n.Size < 0 || len(n.Spans) > maxSpans || !n.Spans.valid(n.Size) || n.Hashed < 0 || n.Hashed > n.Spans.prefix() {
		return note{}, errors.New("note contradicts itself")
	}
	return n, nil
}

func removeNotes(base string) error {
	var errs []error
	for _, suffix := range []string{recentSuffix, syncedSuffix, recentSuffix + newSuffix, syncedSuffix + newSuffix} {
		if err := os.Remove(base + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Partial is what came of a blob whose download is not under way.
type Partial struct {
	Digest   digest.Digest
	Size     int64     // bytes on disk
	Modified time.Time // when something came last
}

// Partials lists what came of blobs whose downloads are not under way.
func (s *Store) Partials() ([]Partial, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.partials()
}

// partials is Partials. The caller holds mu.
func (s *Store) partials() ([]Partial, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "partial"))
	if err != nil {
		return nil, fmt.Errorf("list partial blobs: %w", err)
	}
	var found []Partial
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if d.Validate() != nil || s.ingests[d] != nil {
			continue
		}
		p := Partial{Digest: d}
		for _, suffix := range []string{"", recentSuffix, syncedSuffix} {
			if info, err := os.Lstat(filepath.Join(s.root, "partial", e.Name()+suffix)); err == nil {
				p.Size += dir.Allocated(info)
				if info.ModTime().After(p.Modified) {
					p.Modified = info.ModTime()
				}
			}
		}
		found = append(found, p)
	}
	return found, nil
}

// DropPartials deletes what came of blobs whose downloads are not under way and to which nothing was added for an age, and returns how many bytes that were.
func (s *Store) DropPartials(age time.Duration) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.partials()
	if err != nil {
		return 0, err
	}
	var freed int64
	for _, p := range found {
		if time.Since(p.Modified) < age {
			continue
		}
		base := filepath.Join(s.root, "partial", p.Digest.Encoded())
		if err := errors.Join(removeNotes(base), os.Remove(base)); err != nil {
			return freed, fmt.Errorf("drop partial blob: %w", err)
		}
		freed += p.Size
	}
	return freed, nil
}

// Forget deletes what came of a blob, unless its download is under way.
func (s *Store) Forget(d digest.Digest) error {
	if _, err := s.path(d); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ingests[d] != nil {
		return nil
	}
	base := filepath.Join(s.root, "partial", d.Encoded())
	err := removeNotes(base)
	if rerr := os.Remove(base); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if err != nil {
		return fmt.Errorf("forget partial blob: %w", err)
	}
	return nil
}

// strangePartials lists files in the folder of partial blobs that are of no use: data without a note, notes without data, notes in the making, and others. What belongs
// to an ingest that is open is left out.
func (s *Store) strangePartials() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "partial"))
	if err != nil {
		return nil, fmt.Errorf("list partial blobs: %w", err)
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = e.Type().IsRegular()
	}
	var strange []string
	for _, e := range entries {
		name := e.Name()
		base := strings.TrimSuffix(strings.TrimSuffix(name, recentSuffix), syncedSuffix)
		d := digest.NewDigestFromEncoded(digest.SHA256, base)
		valid := d.Validate() == nil
		if hex, _, _ := strings.Cut(name, "."); s.ingests[digest.NewDigestFromEncoded(digest.SHA256, hex)] != nil {
			continue
		}
		if !valid || !there[name] || !there[base] || name == base && !there[base+recentSuffix] && !there[base+syncedSuffix] {
			strange = append(strange, name)
		}
	}
	return strange, nil
}
