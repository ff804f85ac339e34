package server

import (
	"encoding/binary"
	"os"
	"sync"
	"syscall"
	"time"

	"gantry/shim/wire"
)

const (
	// maxQueue is the output in bytes that waits for a client who reads slowly. Beyond it the container's writes block, as with
	// Docker: output that somebody attached to is never dropped, `run image dump | slow` gets every byte. A client that is gone,
	// or a connection that died, unblocks at once.
	maxQueue = 1 << 20
	// frameHeader is the length of the header that Docker's multiplexed streams put before each piece of output.
	frameHeader = 8
	// lingerTime is how long a client may take to close its side after we closed ours.
	lingerTime = 5 * time.Second
)

// client is one attached connection.
type client struct {
	conn   *os.File
	raw    syscall.RawConn
	stream wire.Stream

	mu       sync.Mutex // guards below
	changed  *sync.Cond // on mu: queue got shorter, or the state changed
	queue    []byte
	flushing bool // a goroutine writes the queue
	patient  bool // the process has ended: take all output at once, do not block its reader
	closing  bool // no more output will come
	dead     bool // the connection is of no use any more
	finished func()
}

// newClient makes a client of a connection, which it owns from now on; finished is called when it is done with it.
func newClient(conn *os.File, stream wire.Stream, finished func()) (*client, error) {
	fd, err := renew(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := &client{conn: fd, stream: stream, finished: finished}
	c.changed = sync.NewCond(&c.mu)
	if c.raw, err = fd.SyscallConn(); err != nil {
		fd.Close()
		return nil, err
	}
	return c, nil
}

// renew returns the file in non-blocking mode, so that goroutines and not threads wait for it. The given one is closed.
func renew(f *os.File) (*os.File, error) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	copied := -1
	cerr := raw.Control(func(fd uintptr) {
		var n uintptr
		var errno syscall.Errno
		n, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 3)
		if errno != 0 {
			err = os.NewSyscallError("fcntl", errno)
			return
		}
		copied = int(n)
		err = syscall.SetNonblock(copied, true)
	})
	if err == nil {
		err = cerr
	}
	if err != nil {
		if copied >= 0 {
			syscall.Close(copied)
		}
		return nil, err
	}
	return os.NewFile(uintptr(copied), f.Name()), nil
}

// wants reports whether the client has an output attached: 1 stdout, 2 stderr.
func (c *client) wants(output byte) bool {
	return output == 1 && c.stream.Stdout || output == 2 && c.stream.Stderr
}

// send delivers output, now if the connection takes it. b has frameHeader free bytes before the text. It blocks while too much waits.
func (c *client) send(output byte, b []byte) {
	if c.stream.Mux {
		b[0], b[1], b[2], b[3] = output, 0, 0, 0
		binary.BigEndian.PutUint32(b[4:], uint32(len(b)-frameHeader))
	} else {
		b = b[frameHeader:]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.flushing && len(c.queue)+len(b) > maxQueue && !c.dead && !c.patient {
		c.changed.Wait()
	}
	if c.dead {
		return
	}
	if !c.flushing {
		n, err := c.try(b)
		if err != nil {
			c.die()
			return
		}
		if b = b[n:]; len(b) == 0 {
			return
		}
		c.flushing = true
		go c.flush()
	}
	c.queue = append(c.queue, b...)
}

// try writes what the connection takes without waiting.
func (c *client) try(b []byte) (int, error) {
	written := 0
	var err error
	werr := c.raw.Write(func(fd uintptr) bool {
		for written < len(b) {
			var n int
			n, err = syscall.SendmsgN(int(fd), b[written:], nil, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				break
			}
			written += n
		}
		return true
	})
	if err == syscall.EAGAIN {
		err = nil
	}
	if err == nil {
		err = werr
	}
	return written, err
}

// flush writes the queue until it is empty.
func (c *client) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 && !c.dead {
		b := c.queue
		c.queue = nil
		c.changed.Broadcast()
		c.mu.Unlock() // others only append to the queue and never write while flushing is set
		_, err := c.conn.Write(b)
		c.mu.Lock()
		if err != nil {
			c.die()
		}
	}
	c.flushing = false
	if c.closing {
		c.hangUp()
	}
}

// relax lets the rest of the output of a process that has ended be queued whatever its length: a pipe's content at most.
func (c *client) relax() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.patient = true
	c.changed.Broadcast()
}

// close says that no more output will come. What waits is still delivered.
func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	c.closing = true
	if !c.flushing {
		c.hangUp()
	}
}

// die marks the connection as useless. c.mu is held.
func (c *client) die() {
	c.dead = true
	c.queue = nil
	c.changed.Broadcast()
}

// hangUp ends the connection: our side first, then both once the client has seen that. A socket that is closed with unread input in
// it would reset the connection, and the client could lose output that it has not read. c.mu is held.
func (c *client) hangUp() {
	if c.finished == nil {
		return
	}
	finished := c.finished
	c.finished = nil
	if c.dead {
		c.conn.Close()
		finished()
		return
	}
	_ = c.raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_WR) })
	_ = c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	go func() {
		var b [512]byte
		for {
			if _, err := c.conn.Read(b[:]); err != nil {
				break
			}
		}
		c.conn.Close()
		finished()
	}()
}
