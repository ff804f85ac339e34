// Package watch wakes those who follow a log file, through one inotify instance for all of them.
package watch

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"syscall"

	"gantry/errdefs"
)

// Watcher tells its subscribers that something changed in a directory. It must be closed.
type Watcher struct {
	file *os.File

	mu          sync.Mutex           // guards below
	directories map[int32]*directory // by watch descriptor
	byPath      map[string]int32     // of directories
	closed      bool
}

type directory struct {
	path        string
	subscribers map[*Subscription]struct{}
}

// Subscription is one listener. C gets a value after each change; several changes may be one value. A closed C means that the
// directory, or the Watcher, is gone.
type Subscription struct {
	C <-chan struct{}

	c  chan struct{}
	w  *Watcher
	wd int32
}

// events are those that a log file's writer causes: new bytes, a rotation, the directory's end.
const events = syscall.IN_MODIFY | syscall.IN_CREATE | syscall.IN_MOVED_FROM | syscall.IN_MOVED_TO | syscall.IN_DELETE | syscall.IN_ONLYDIR

// New makes an inotify instance. Exhausted: the user's limit of instances is reached (fs.inotify.max_user_instances).
func New() (*Watcher, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		kind := errdefs.Internal
		if err == syscall.EMFILE || err == syscall.ENFILE {
			kind = errdefs.Exhausted
		}
		return nil, errdefs.New(kind, "watch log files: %w", err)
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "inotify"), directories: map[int32]*directory{}, byPath: map[string]int32{}}
	go w.run()
	return w, nil
}

// Subscribe listens for changes among the files of the directory at path.
func (w *Watcher) Subscribe(path string) (*Subscription, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, fmt.Errorf("watch %s: %w", path, os.ErrClosed)
	}
	wd, known := w.byPath[path]
	if !known {
		fd, err := w.add(path)
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", path, err)
		}
		wd = fd
		if w.directories[wd] == nil { // else another path of the same directory
			w.directories[wd] = &directory{path: path, subscribers: map[*Subscription]struct{}{}}
			w.byPath[path] = wd
		}
	}
	c := make(chan struct{}, 1)
	s := &Subscription{C: c, c: c, w: w, wd: wd}
	w.directories[wd].subscribers[s] = struct{}{}
	return s, nil
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	d := s.w.directories[s.wd]
	if d == nil {
		return
	}
	delete(d.subscribers, s)
	if len(d.subscribers) == 0 {
		s.w.forget(s.wd, d)
		if !s.w.closed {
			s.w.remove(s.wd)
		}
	}
}

// Close ends all subscriptions.
func (w *Watcher) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return w.file.Close() // run ends and closes the channels
}

func (w *Watcher) add(path string) (int32, error) {
	var wd int
	raw, err := w.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) { wd, err = syscall.InotifyAddWatch(int(fd), path, events) })
	if cerr != nil {
		return 0, cerr
	}
	return int32(wd), err
}

// remove drops a watch; the kernel may have dropped it already with its directory.
func (w *Watcher) remove(wd int32) {
	if raw, err := w.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = syscall.InotifyRmWatch(int(fd), uint32(wd)) })
	}
}

func (w *Watcher) forget(wd int32, d *directory) {
	delete(w.directories, wd)
	delete(w.byPath, d.path)
}

func (w *Watcher) run() {
	buf := make([]byte, 16<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			w.end()
			return
		}
		w.mu.Lock()
		for b := buf[:n]; len(b) >= syscall.SizeofInotifyEvent; {
			wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
			w.notify(wd, mask)
			size := syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			if size > len(b) {
				break
			}
			b = b[size:]
		}
		w.mu.Unlock()
	}
}

// notify wakes the subscribers of one directory, or all of them after a queue overflow. w.mu is held.
func (w *Watcher) notify(wd int32, mask uint32) {
	if mask&syscall.IN_Q_OVERFLOW != 0 {
		for _, d := range w.directories {
			d.wake()
		}
		return
	}
	d := w.directories[wd]
	if d == nil {
		return
	}
	if mask&syscall.IN_IGNORED != 0 { // the directory is gone
		w.forget(wd, d)
		for s := range d.subscribers {
			close(s.c)
		}
		return
	}
	d.wake()
}

func (d *directory) wake() {
	for s := range d.subscribers {
		select {
		case s.c <- struct{}{}:
		default:
		}
	}
}

func (w *Watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for wd, d := range w.directories {
		w.forget(wd, d)
		for s := range d.subscribers {
			close(s.c)
		}
	}
}
