package server

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/logs"
	"gantry/shim/wire"
)

const (
	// drainTime is how long output is awaited after a process has ended: its children may hold the other end open for ever.
	drainTime = 2 * time.Second
	// readSize is the buffer for output; small outputs use one of smallRead bytes, so that idle containers cost no memory.
	readSize  = 64 << 10
	smallRead = 512
	// maxRest bounds what is taken from a pipe that is given up: as much as pipes are allowed to hold by default.
	maxRest = 1 << 20
)

// session is a process and its standard streams: the container's own, or one exec's.
type session struct {
	id        string // "" for the container's own
	unit      *unit
	process   process
	terminal  bool
	stdinOnce bool

	outputs []*output
	drained sync.WaitGroup // outputs

	mu      sync.Mutex // guards below
	stdin   *os.File   // our end of the pipe, or the terminal; nil: none, or closed
	clients []*client  // replaced, never changed in place
	ended   bool       // the process has ended and its output is drained
}

// output is our end of one output stream.
type output struct {
	session *session
	file    *os.File
	kind    byte         // 1 stdout, 2 stderr
	log     *logs.Output // nil: not logged
	small   [frameHeader + smallRead]byte
}

// stdio makes the pipes of a session without a terminal and returns the process's ends: stdin (nil: none), stdout, stderr.
func (s *session) stdio(stdin bool, uid uint32) (ends [3]*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(ends[:])
			s.closeFiles()
		}
	}()
	if stdin {
		if s.stdin, ends[0], err = pipe(true); err != nil {
			return ends, err
		}
	}
	for i, kind := range [...]logs.Stream{logs.Stdout, logs.Stderr} {
		o := &output{session: s, kind: byte(kind)}
		if o.file, ends[i+1], err = pipe(false); err != nil {
			return ends, err
		}
		s.outputs = append(s.outputs, o)
	}
	if uid != 0 { // else the process could not open /dev/stdout
		for _, end := range ends {
			if end != nil {
				if err = end.Chown(int(uid), -1); err != nil {
					return ends, fmt.Errorf("hand standard streams to user %d: %w", uid, err)
				}
			}
		}
	}
	return ends, nil
}

// console takes over the master side of the process's terminal.
func (s *session) console(master *os.File) error {
	second, err := duplicate(master)
	if err != nil {
		return err
	}
	if master, err = renew(master); err != nil {
		second.Close()
		return err
	}
	if s.stdin, err = renew(second); err != nil {
		master.Close()
		return err
	}
	o := &output{session: s, file: master, kind: byte(logs.Stdout)}
	s.outputs = append(s.outputs, o)
	return nil
}

// logTo keeps the session's output in a log too.
func (s *session) logTo(log *logs.Writer) {
	for _, o := range s.outputs {
		o.log = log.Output(logs.Stream(o.kind))
	}
}

// closeFiles closes our ends of a session that never ran.
func (s *session) closeFiles() {
	for _, o := range s.outputs {
		o.file.Close()
	}
	if s.stdin != nil {
		s.stdin.Close()
	}
}

// run starts copying.
func (s *session) run() {
	for _, o := range s.outputs {
		s.drained.Go(o.copy)
	}
}

// attach gives the session one more client.
func (s *session) attach(conn *os.File, stream wire.Stream) error {
	s.unit.clients.Add(1)
	c, err := newClient(conn, stream, s.unit.clients.Done)
	if err != nil {
		s.unit.clients.Done()
		return fmt.Errorf("attach: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		c.close()
		return nil
	}
	s.clients = append(s.clients[:len(s.clients):len(s.clients)], c)
	if stream.Stdin {
		go s.copyInput(c)
	} else {
		go s.watch(c)
	}
	return nil
}

// drop ends a client's session; the process goes on.
func (s *session) drop(c *client) {
	s.mu.Lock()
	kept := make([]*client, 0, len(s.clients))
	for _, other := range s.clients {
		if other != c {
			kept = append(kept, other)
		}
	}
	s.clients = kept
	s.mu.Unlock()
	c.close()
}

func (s *session) attached() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients
}

// watch notices that a client without stdin broke its connection. One that only closes its side, as Docker's CLI does, stays.
func (s *session) watch(c *client) {
	var b [64]byte
	for {
		if _, err := c.conn.Read(b[:]); err != nil {
			if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ETIMEDOUT) {
				c.mu.Lock()
				c.die()
				c.mu.Unlock()
				s.drop(c)
			}
			return
		}
	}
}

// copyInput passes on what a client types until it closes its side, detaches or is gone.
func (s *session) copyInput(c *client) {
	d := detacher{}
	if s.terminal {
		if d.keys = c.stream.DetachKeys; d.keys == nil {
			d.keys = []byte{16, 17} // ctrl-p ctrl-q
		}
	}
	in, out := append([]byte(nil), c.stream.Prefix...), []byte(nil)
	buf := make([]byte, 4<<10)
	for {
		var detached bool
		if out, detached = d.filter(out[:0], in); len(out) > 0 {
			s.input(out)
		}
		if detached {
			s.drop(c)
			s.unit.server.announce(wire.Event{Kind: wire.EventDetach, ExecID: s.id})
			return
		}
		n, err := c.conn.Read(buf)
		in = buf[:n]
		if err != nil {
			break
		}
	}
	s.input(d.rest())
	s.mu.Lock()
	over := s.ended
	s.mu.Unlock()
	switch {
	case over:
	case s.stdinOnce && !s.terminal:
		s.closeStdin()
	default: // as Docker: whoever could type and has gone leaves its output too
		s.drop(c)
	}
}

// input writes to the process's stdin; what comes after it was closed is lost.
func (s *session) input(b []byte) {
	s.mu.Lock()
	stdin := s.stdin
	s.mu.Unlock()
	if stdin == nil || len(b) == 0 {
		return
	}
	if _, err := stdin.Write(b); err != nil && !errors.Is(err, os.ErrClosed) && !s.terminal {
		s.closeStdin() // the process closed its end
	}
}

// closeStdin lets the process see the end of its input. A terminal has none: it stays open.
func (s *session) closeStdin() {
	s.mu.Lock()
	stdin := s.stdin
	if s.terminal {
		stdin = nil
	} else {
		s.stdin = nil
	}
	s.mu.Unlock()
	if stdin != nil {
		stdin.Close()
	}
}

// copy passes output on until the process and all who inherited the stream have closed it.
func (o *output) copy() {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	var large []byte // while much comes
	for {
		var n int
		var b []byte
		rerr := raw.Read(func(fd uintptr) bool {
			for {
				if b = large; b == nil {
					b = o.small[:]
				}
				n, err = syscall.Read(int(fd), b[frameHeader:])
				if err == syscall.EINTR {
					continue
				}
				if err == syscall.EAGAIN {
					large = nil
					return false
				}
				return true
			}
		})
		if rerr != nil {
			o.rest(raw)
			break
		}
		if err != nil || n <= 0 { // a terminal says EIO at its end
			break
		}
		o.pass(b[:frameHeader+n])
		if large == nil && n == smallRead {
			large = make([]byte, frameHeader+readSize)
		}
	}
	if o.log != nil {
		o.log.Close(time.Now())
	}
}

// rest passes on what lies in a pipe that is given up: with a machine under load that can be output of the process itself.
func (o *output) rest(raw syscall.RawConn) {
	b := make([]byte, frameHeader+readSize)
	for range maxRest / readSize {
		n := 0
		err := raw.Control(func(fd uintptr) {
			n, _ = syscall.Read(int(fd), b[frameHeader:]) // an error is as good as the end here
		})
		if err != nil || n <= 0 {
			return
		}
		o.pass(b[:frameHeader+n])
	}
}

// pass gives output, after room for a frame's header, to all who want it.
func (o *output) pass(b []byte) {
	at := time.Now()
	for _, c := range o.session.attached() {
		if c.wants(o.kind) {
			c.send(o.kind, b)
		}
	}
	if o.log != nil {
		o.log.Write(b[frameHeader:], at)
	}
}

// finish ends the session of a process that has ended: it takes the output that is left, calls drained, and lets the clients go.
// Whoever sees the end of the output may then ask for the exit code: so drained makes that known first.
func (s *session) finish(drained func()) {
	for _, c := range s.attached() {
		c.relax()
	}
	expired := time.AfterFunc(drainTime, func() {
		for _, o := range s.outputs {
			_ = o.file.SetReadDeadline(time.Unix(1, 0)) // a child of the process holds it: leave it
		}
	})
	s.drained.Wait()
	expired.Stop()
	for _, o := range s.outputs {
		o.file.Close()
	}
	drained()
	s.mu.Lock()
	s.ended = true
	clients := s.clients
	s.clients = nil
	stdin := s.stdin
	s.stdin = nil
	s.mu.Unlock()
	if stdin != nil {
		stdin.Close()
	}
	for _, c := range clients {
		c.close()
	}
	if s.id != "" { // the container's own goes with the container
		s.process.Close()
	}
}

func (s *session) signal(sig syscall.Signal) error {
	err := s.process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, os.ErrClosed) {
		return errdefs.New(errdefs.NotFound, "the process has ended")
	}
	return err
}

func (s *session) resize(rows, cols uint16) error {
	if !s.terminal {
		return errdefs.New(errdefs.InvalidParameter, "cannot resize: the process has no terminal")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin == nil {
		return errdefs.New(errdefs.NotFound, "the process has ended")
	}
	return setSize(s.stdin, rows, cols)
}
