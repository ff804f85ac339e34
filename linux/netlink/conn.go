// Package netlink talks rtnetlink to the kernel: links, addresses and routes, several requests in one system call.
package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Conn is a netlink socket. It stays in the network namespace in which it was opened. Its methods may be called
// concurrently.
type Conn struct {
	mu   sync.Mutex // guards all below: one request at a time
	fd   int
	port uint32
	seq  uint32
	buf  []byte
}

// DialRoute opens an rtnetlink socket in the network namespace of the calling thread.
func DialRoute() (*Conn, error) { return Dial(unix.NETLINK_ROUTE) }

// Dial opens a netlink socket of the protocol in the network namespace of the calling thread.
func Dial(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &Conn{fd: fd, buf: make([]byte, 32<<10)}
	if err := c.setup(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return c, nil
}

func (c *Conn) setup() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	addr, err := unix.Getsockname(c.fd)
	if err != nil {
		return err
	}
	if nl, ok := addr.(*unix.SockaddrNetlink); ok {
		c.port = nl.Pid
	}
	// Both are improvements that old kernels or missing privileges may deny.
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20)
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	return nil
}

// Port returns the socket's address: what announcements of its own changes carry.
func (c *Conn) Port() uint32 { return c.port }

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// Do sends the requests in one system call; the kernel executes them in order. When one fails the later ones are
// executed all the same, and the first failure is returned: a unix.Errno in an error that gives the request's position.
func (c *Conn) Do(requests ...Message) error {
	if len(requests) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.seq + 1
	var out []byte
	for i, m := range requests {
		flags := uint16(0)
		if i == len(requests)-1 {
			flags = unix.NLM_F_ACK // errors come back unasked
		}
		c.seq++
		out = m.append(out, c.seq, flags)
	}
	if err := c.send(out); err != nil {
		return err
	}
	var failed error
	for {
		replies, err := c.read(0)
		if err != nil {
			return err
		}
		for _, r := range replies {
			if r.Seq < first || r.Seq > c.seq || r.Type != unix.NLMSG_ERROR {
				continue
			}
			if err := errno(r); err != nil && failed == nil {
				failed = fmt.Errorf("netlink request %d of %d: %w", r.Seq-first+1, len(requests), err)
			}
			if r.Seq == c.seq {
				return failed
			}
		}
	}
}

// Get sends a request for one object and returns the body of the answer.
func (c *Conn) Get(m Message) (Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	if err := c.send(m.append(nil, c.seq, 0)); err != nil {
		return Reply{}, err
	}
	for {
		replies, err := c.read(0)
		if err != nil {
			return Reply{}, err
		}
		for _, r := range replies {
			if r.Seq != c.seq {
				continue
			}
			if r.Type == unix.NLMSG_ERROR {
				if err := errno(r); err != nil {
					return Reply{}, err
				}
				return Reply{}, errors.New("netlink: acknowledged without an answer")
			}
			r.Body = append([]byte(nil), r.Body...)
			return r, nil
		}
	}
}

// Dump sends a request for all objects of a kind and calls f for each. A dump that changed under way is repeated,
// after reset.
func (c *Conn) Dump(m Message, reset func(), f func(Reply) error) error {
	const attempts = 8
	for range attempts {
		reset()
		again, err := c.dump(m, f)
		if err != nil || !again {
			return err
		}
	}
	return errors.New("netlink: the objects kept changing while they were listed")
}

func (c *Conn) dump(m Message, f func(Reply) error) (interrupted bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	if err := c.send(m.append(nil, c.seq, unix.NLM_F_DUMP)); err != nil {
		return false, err
	}
	var failed error
	for {
		replies, err := c.read(0)
		if err != nil {
			return false, err
		}
		for _, r := range replies {
			if r.Seq != c.seq {
				continue
			}
			interrupted = interrupted || r.Flags&unix.NLM_F_DUMP_INTR != 0
			switch r.Type {
			case unix.NLMSG_DONE:
				return interrupted, failed
			case unix.NLMSG_ERROR:
				return interrupted, errors.Join(failed, errno(r))
			default:
				if failed == nil {
					failed = f(r)
				}
			}
		}
	}
}

// Transact sends raw, which holds messages that Encode made with numbers from seq to last, and returns every answer that is there when the kernel has
// executed them.
func (c *Conn) Transact(encode func(seq uint32) (raw []byte, last uint32)) ([]Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, last := encode(c.seq + 1)
	first := c.seq + 1
	c.seq = last
	if err := c.send(raw); err != nil {
		return nil, err
	}
	var all []Reply
	for {
		replies, err := c.read(unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		for _, r := range replies {
			if r.Seq >= first && r.Seq <= last {
				r.Body = append([]byte(nil), r.Body...)
				all = append(all, r)
			}
		}
	}
}

// Encode appends a message for Transact.
func Encode(b []byte, m Message, seq uint32) []byte { return m.append(b, seq, 0) }

// Errno returns the error that an NLMSG_ERROR reply carries; nil for an acknowledgement.
func Errno(r Reply) error { return errno(r) }

func (c *Conn) send(b []byte) error {
	if c.fd < 0 {
		return unix.EBADF
	}
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("netlink send: %w", err)
		}
	}
}

func (c *Conn) read(flags int) ([]Reply, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, flags|unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("netlink receive: %w", err)
		case n > len(c.buf):
			c.buf = make([]byte, n)
			return nil, fmt.Errorf("netlink receive: message of %d bytes was cut", n)
		}
		return parse(c.buf[:n])
	}
}

func errno(r Reply) error {
	if len(r.Body) < 4 {
		return errors.New("netlink: error message without an error")
	}
	if code := int32(binary.NativeEndian.Uint32(r.Body)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// Listener receives announcements.
type Listener struct {
	file *os.File
	buf  []byte
}

// Listen opens a netlink socket of the protocol in the network namespace of the calling thread that receives the
// announcements of one group.
func Listen(protocol, group int) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("join netlink group %d: %w", group, err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) // without it more may be lost, which is told
	return &Listener{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 64<<10)}, nil
}

// Receive waits for announcements, without holding a thread. Lost reports that some were lost because they came faster
// than they were received. After Close it returns an error that is os.ErrClosed.
func (l *Listener) Receive() (replies []Reply, lost bool, err error) {
	n, err := l.file.Read(l.buf)
	if errors.Is(err, unix.ENOBUFS) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	replies, err = parse(l.buf[:n])
	return replies, false, err
}

// Close ends Receive.
func (l *Listener) Close() error { return l.file.Close() }
