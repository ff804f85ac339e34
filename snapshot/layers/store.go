// Package layers keeps what all snapshotters have in common: unpacked layers, and which of them a snapshot stands on.
//
//	layers/<hex>/fs           contents of a layer, in overlayfs's form; <hex> is its diffID, or the chain ID of one that needed the layers beneath
//	layers/<hex>/layer.erofs  instead of fs: the same as an EROFS image
//	layers/<hex>/layer.json   what is known of it
//	layers/base               beneath all layers: the places where every container has mounts
//	snapshots/<key>/layers    hex names of a snapshot's layers, bottom first, one a line; what else is there is the snapshotter's
//	tmp/layer-*               layers being unpacked, layers and snapshots being deleted; nobody misses them
//
// The folders are the truth; what is kept in memory is read from them by Open.
package layers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/archive"
	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/snapshot"

	"github.com/opencontainers/go-digest"
)

const (
	layerPrefix = "layer-"
	baseLayer   = "base"
	record      = "layer.json"
	imageFile   = "layer.erofs"

	// sweepWait is how long Open waits for a process that still unpacks for a killed daemon. It ends as soon as it sees the end of its pipe.
	sweepWait = 10 * time.Second
)

// Options shape a Store.
type Options struct {
	Limits archive.Limits          // of every layer, until SetLimits replaces them
	Images bool                    // new layers become EROFS images; Open fails where the kernel cannot mount them
	Delete func(path string) error // deletes a folder; nil: os.RemoveAll
}

// Store keeps the layers and the list of snapshots of one data root, which no other process may use meanwhile.
type Store struct {
	Root   string
	o      Options
	layers *os.File       // open since before the first write, so that Commit hears of every write error
	going  sync.WaitGroup // deletions under way

	mu        sync.Mutex // guards all below
	known     map[string]layer
	snapshots map[string][]string // names of layers, bottom first, by key; nil when they cannot be read
	uses      map[string]int      // by name of layer: snapshots that stand on it
	staged    map[string]bool     // folders in tmp that Stage has given out
	images    map[string]*os.File // detached mounts of those layers that are images and were needed
}

// layer is the content of layer.json.
type layer struct {
	snapshot.Layer
	Opaque bool `json:"opaque,omitempty"` // hides all beneath
	image  bool
	disk   int64 // bytes of blocks; 0: not measured yet
}

// Lower is a layer beneath a snapshot.
type Lower struct {
	Name string // in layers/
	Path string // of a folder with its contents, for this process to open while the snapshot is there
	File string // the same for people: a folder or an image
}

// Open drops what a killed process left behind and returns the store of a data root.
func Open(root string, o Options) (*Store, error) {
	if o.Delete == nil {
		o.Delete = os.RemoveAll
	}
	s := &Store{Root: root, o: o, known: map[string]layer{}, snapshots: map[string][]string{}, uses: map[string]int{}, staged: map[string]bool{}, images: map[string]*os.File{}}
	for _, d := range []string{"layers", "snapshots", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			return nil, fmt.Errorf("open snapshots: %w", err)
		}
	}
	if err := makeBase(s.Base()); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	var err error
	if s.layers, err = os.Open(filepath.Join(root, "layers")); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	err = s.load()
	if err == nil && o.Images {
		err = s.probe()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshots: %w", err), s.layers.Close())
	}
	return s, nil
}

// Base returns the lowest folder of every snapshot. It has the files and folders on which a container's own mounts are
// made, so that making them changes nothing in the snapshot: Docker's "init layer".
func (s *Store) Base() string { return filepath.Join(s.Root, "layers", baseLayer) }

func makeBase(base string) error {
	for _, d := range []string{"", "dev", "dev/pts", "dev/shm", "proc", "sys", "etc"} {
		name := filepath.Join(base, d)
		if err := os.MkdirAll(name, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(name, 0o755); err != nil { // whatever our umask is
			return err
		}
	}
	for _, f := range []string{".dockerenv", "dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf"} {
		file, err := os.OpenFile(filepath.Join(base, f), os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		if err := errors.Join(file.Chmod(0o644), file.Close()); err != nil {
			return err
		}
	}
	if err := os.Symlink("/proc/mounts", filepath.Join(base, "etc/mtab")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// load sweeps tmp and reads what is there.
func (s *Store) load() error {
	left, err := s.leftovers()
	if err != nil {
		return err
	}
	for _, l := range left {
		awaitUnlock(filepath.Join(l, record))
		if err := s.o.Delete(l); err != nil {
			return err
		}
	}
	names, err := s.names("layers")
	if err != nil {
		return err
	}
	for _, name := range names {
		if l, err := s.readLayer(name); err == nil {
			s.known[name] = l
		}
	}
	keys, err := s.names("snapshots")
	if err != nil {
		return err
	}
	for _, key := range keys {
		layers, err := s.readSnapshot(key)
		if err != nil {
			layers = nil // Check reports it, Mount refuses it
		}
		s.snapshots[key] = layers
		for _, l := range layers {
			s.uses[l]++
		}
	}
	return nil
}

// awaitUnlock waits for the process that holds a lock on a file, for a while. There need not be such a file.
func awaitUnlock(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	free := make(chan struct{})
	go func() {
		defer close(free)
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX) // with or without it, the folder goes
		_ = f.Close()                                   // read only
	}()
	select {
	case <-free:
	case <-time.After(sweepWait):
	}
}

func (s *Store) names(folder string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.Root, folder))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Name() != baseLayer || folder != "layers" {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// leftovers lists the folders in tmp that are nobody's.
func (s *Store) leftovers() ([]string, error) {
	all, err := filepath.Glob(filepath.Join(s.Root, "tmp", layerPrefix+"*"))
	if err != nil {
		return nil, err
	}
	var left []string
	for _, f := range all {
		if !s.staged[f] {
			left = append(left, f)
		}
	}
	return left, nil
}

func (s *Store) readLayer(name string) (layer, error) {
	var l layer
	data, err := os.ReadFile(filepath.Join(s.Root, "layers", name, record))
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, err
	}
	if l.Key.Validate() != nil || l.Key.Encoded() != name || l.DiffID.Validate() != nil {
		return l, errors.New("layer.json is about another layer")
	}
	folder := filepath.Join(s.Root, "layers", name)
	if l.image, err = hasImage(folder); err != nil {
		return l, err
	}
	if st, err := os.Lstat(filepath.Join(folder, "fs")); !l.image && (err != nil || !st.IsDir()) {
		return l, errors.New("the layer has no contents")
	}
	return l, nil
}

// readSnapshot returns the names of the layers of a snapshot; not nil when there are none.
func (s *Store) readSnapshot(key string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(s.Root, "snapshots", key, "layers"))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) < 2 || lines[len(lines)-1] != "" || lines[len(lines)-2] != "." {
		return nil, errors.New("the list of layers is cut off")
	}
	return lines[: len(lines)-2 : len(lines)-2], nil
}

// encodeSnapshot is the inverse of readSnapshot. The dot shows that nothing is cut off.
func encodeSnapshot(layers []string) []byte {
	var b []byte
	for _, l := range layers {
		b = append(append(b, l...), '\n')
	}
	return append(b, ".\n"...)
}

// Close waits for deletions under way and releases the store; mounts stay.
func (s *Store) Close() error {
	s.going.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.layers.Close()
	for _, m := range s.images {
		err = errors.Join(err, m.Close())
	}
	return err
}

// find returns the names of the layers with these diffIDs. The caller holds mu.
func (s *Store) find(diffIDs []digest.Digest) ([]string, error) {
	names := make([]string, len(diffIDs))
	chain := digest.Digest("")
	for i, d := range diffIDs {
		if err := d.Validate(); err != nil {
			return nil, errdefs.New(errdefs.InvalidParameter, "layer %q: %w", d, err)
		}
		if chain == "" {
			chain = d
		} else {
			chain = digest.FromString(chain.String() + " " + d.String())
		}
		switch {
		case s.has(d):
			names[i] = d.Encoded()
		case s.has(chain):
			names[i] = chain.Encoded()
		default:
			return nil, errdefs.New(errdefs.NotFound, "layer %s is not here", d)
		}
	}
	return names, nil
}

func (s *Store) has(key digest.Digest) bool {
	_, ok := s.known[key.Encoded()]
	return ok
}

// visible cuts off the layers that an opaque one hides, and returns the rest, top first. Of a layer that comes twice only the upper one
// counts: it hides the lower one anyway, and overlayfs refuses to stack both. The caller holds mu.
func (s *Store) visible(names []string) []string {
	var top []string
	seen := map[string]bool{}
	for i := len(names) - 1; i >= 0; i-- {
		if seen[names[i]] {
			continue
		}
		seen[names[i]] = true
		top = append(top, names[i])
		if s.known[names[i]].Opaque {
			break
		}
	}
	return top
}

// lowers returns the layers that can be seen, top first, the base last. The caller holds mu.
func (s *Store) lowers(names []string) ([]Lower, error) {
	var list []Lower
	for _, name := range s.visible(names) {
		l := Lower{Name: name, Path: filepath.Join(s.Root, "layers", name, "fs")}
		l.File = l.Path
		if s.known[name].image {
			l.File = filepath.Join(s.Root, "layers", name, imageFile)
			m, err := s.mounted(name, l.File)
			if err != nil {
				return nil, err
			}
			l.Path = fd.Path(m)
		}
		list = append(list, l)
	}
	return append(list, Lower{baseLayer, s.Base(), s.Base()}), nil
}

func validKey(key string) error {
	if key == "" || len(key) > 128 || key[0] == '.' || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
		return errdefs.New(errdefs.InvalidParameter, "snapshot key %q is not valid", key)
	}
	return nil
}
