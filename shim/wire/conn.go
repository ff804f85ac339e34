package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"gantry/errdefs"
)

// Kind says what a frame is.
type Kind uint8

// The kinds of frame. A Result or Failure answers the Request of the same ID; an Announcement (an Event) has ID 0.
const (
	Request Kind = iota + 1
	Result
	Failure
	Announcement
)

// Method is what a Request asks for.
type Method uint8

// The methods, with the types of their arguments and results.
const (
	MethodStart      Method = iota + 1 // StartRequest -> State; then events
	MethodState                        // StateRequest -> State; then events if asked for
	MethodAttach                       // AttachRequest, 1 file
	MethodResize                       // ResizeRequest
	MethodSignal                       // SignalRequest
	MethodPause                        //
	MethodResume                       //
	MethodUpdate                       // specs.LinuxResources
	MethodStats                        // -> cgroup.Stats
	MethodPids                         // -> []int
	MethodExec                         // ExecRequest, a file for each of Streams -> Exec
	MethodCloseStdin                   // CloseStdinRequest
	MethodDelete                       //
)

// A frame is a header of 12 bytes, little endian: u32 length of the body, u32 ID, u8 kind, u8 method, u16 number of files; then the
// body. The files travel as SCM_RIGHTS with the frame's first bytes.
const headerSize = 12

const (
	// MaxBody is the largest body that is accepted, in bytes.
	MaxBody = 16 << 20
	// MaxFiles is the largest number of files beside a frame; the kernel takes 253.
	MaxFiles = 200
)

// Header begins a frame.
type Header struct {
	Length uint32
	ID     uint32
	Kind   Kind
	Method Method
	Files  uint16
}

// Frame is one message.
type Frame struct {
	Kind   Kind
	Method Method
	ID     uint32
	Body   []byte
	Files  []*os.File // owned by who receives the frame
}

// Close closes the frame's files.
func (f *Frame) Close() {
	for _, file := range f.Files {
		file.Close()
	}
}

// ParseHeader reads a header and checks its limits. b has headerSize bytes or more.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < headerSize {
		return Header{}, io.ErrUnexpectedEOF
	}
	h := Header{
		Length: binary.LittleEndian.Uint32(b), ID: binary.LittleEndian.Uint32(b[4:]),
		Kind: Kind(b[8]), Method: Method(b[9]), Files: binary.LittleEndian.Uint16(b[10:]),
	}
	if h.Length > MaxBody || h.Files > MaxFiles || h.Kind < Request || h.Kind > Announcement {
		return h, errdefs.New(errdefs.InvalidParameter, "shim protocol: bad frame header % x", b[:headerSize])
	}
	return h, nil
}

// Conn is one end of a connection between daemon and shim. One goroutine receives, any number may send.
type Conn struct {
	file *os.File
	raw  syscall.RawConn

	sending sync.Mutex // one frame at a time

	buf    []byte // received, not yet parsed
	files  []*os.File
	oob    [4 * (MaxFiles + 8)]byte
	failed error
}

// NewConn returns a connection over a unix stream socket, which it owns from now on.
func NewConn(fd int) (*Conn, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	c := &Conn{file: os.NewFile(uintptr(fd), "shim")}
	raw, err := c.file.SyscallConn()
	if err != nil {
		c.file.Close()
		return nil, fmt.Errorf("shim connection: %w", err)
	}
	c.raw = raw
	return c, nil
}

// Close ends the connection; a Receive that waits returns.
func (c *Conn) Close() error { return c.file.Close() }

// Send sends a frame with v as its body: JSON, a *StartRequest packed, empty if v is nil. The files stay the caller's.
func (c *Conn) Send(kind Kind, method Method, id uint32, v any, files ...*os.File) error {
	b := make([]byte, headerSize, 512)
	if start, ok := v.(*StartRequest); ok {
		var err error
		if b, err = Pack(b, start); err != nil {
			return err
		}
	} else if v != nil {
		body, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode shim message: %w", err)
		}
		b = append(b, body...)
	}
	if len(b)-headerSize > MaxBody || len(files) > MaxFiles {
		return errdefs.New(errdefs.InvalidParameter, "shim message of %d bytes and %d files is too large", len(b), len(files))
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-headerSize))
	binary.LittleEndian.PutUint32(b[4:], id)
	b[8], b[9] = byte(kind), byte(method)
	binary.LittleEndian.PutUint16(b[10:], uint16(len(files)))

	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			raw, err := f.SyscallConn()
			if err == nil {
				err = raw.Control(func(fd uintptr) { fds[i] = int(fd) })
			}
			if err != nil {
				return fmt.Errorf("send file to shim: %w", err)
			}
		}
		rights = syscall.UnixRights(fds...)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	var err error
	werr := c.raw.Write(func(fd uintptr) bool {
		for len(b) > 0 {
			var n int
			n, err = syscall.SendmsgN(int(fd), b, rights, nil, syscall.MSG_NOSIGNAL)
			if err == syscall.EINTR {
				continue
			}
			if err == syscall.EAGAIN {
				return false
			}
			if err != nil {
				return true
			}
			b, rights = b[n:], nil
		}
		return true
	})
	if err == nil {
		err = werr
	}
	if err != nil {
		return errdefs.With(errdefs.Unavailable, fmt.Errorf("send to shim: %w", err))
	}
	return nil
}

// SendError answers a request with an error.
func (c *Conn) SendError(id uint32, err error) error {
	return c.Send(Failure, 0, id, NewError(err))
}

// Receive returns the next frame; io.EOF after the last.
func (c *Conn) Receive() (Frame, error) {
	for {
		if len(c.buf) >= headerSize {
			h, err := ParseHeader(c.buf)
			if err != nil {
				c.drop(err)
				return Frame{}, err
			}
			size := headerSize + int(h.Length)
			if len(c.buf) >= size && len(c.files) >= int(h.Files) {
				f := Frame{Kind: h.Kind, Method: h.Method, ID: h.ID, Body: c.buf[headerSize:size:size]}
				f.Files, c.files = c.files[:h.Files:h.Files], c.files[h.Files:]
				if c.buf = c.buf[size:]; len(c.buf) == 0 {
					c.buf = nil // the body has it now
				}
				return f, nil
			}
			if len(c.buf) >= size {
				err := errdefs.New(errdefs.InvalidParameter, "shim protocol: %d files announced, %d came", h.Files, len(c.files))
				c.drop(err)
				return Frame{}, err
			}
			if cap(c.buf) < size {
				c.buf = append(make([]byte, 0, size), c.buf...)
			}
		}
		if err := c.fill(); err != nil {
			if err == io.EOF && len(c.buf) > 0 {
				err = io.ErrUnexpectedEOF
			}
			c.drop(err)
			return Frame{}, err
		}
	}
}

// drop closes the files of a connection that came to its end.
func (c *Conn) drop(err error) {
	for _, f := range c.files {
		f.Close()
	}
	c.files, c.buf, c.failed = nil, nil, err
}

// fill reads once.
func (c *Conn) fill() error {
	if c.failed != nil {
		return c.failed
	}
	var n, oobn, flags int
	var err error
	rerr := c.raw.Read(func(fd uintptr) bool {
		for {
			if cap(c.buf)-len(c.buf) < headerSize { // only now: an idle connection has no buffer
				c.buf = append(make([]byte, 0, max(1024, 2*cap(c.buf))), c.buf...)
			}
			n, oobn, flags, _, err = syscall.Recvmsg(int(fd), c.buf[len(c.buf):cap(c.buf)], c.oob[:], syscall.MSG_CMSG_CLOEXEC)
			if err == syscall.EINTR {
				continue
			}
			if err == syscall.EAGAIN && len(c.buf) == 0 {
				c.buf = nil
			}
			return err != syscall.EAGAIN
		}
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("receive from shim: %w", err)
	}
	if oobn > 0 {
		if err := c.take(c.oob[:oobn]); err != nil {
			return err
		}
	}
	if flags&syscall.MSG_CTRUNC != 0 {
		return errors.New("receive from shim: files were lost")
	}
	if n == 0 {
		return io.EOF
	}
	c.buf = c.buf[:len(c.buf)+n]
	return nil
}

// take keeps the files of control messages.
func (c *Conn) take(oob []byte) error {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("receive from shim: %w", err)
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue // other than files
		}
		for _, fd := range fds {
			c.files = append(c.files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return nil
}

// Decode reads a frame's body into v, by the rules of Send.
func (f *Frame) Decode(v any) error {
	if start, ok := v.(*StartRequest); ok {
		return Unpack(f.Body, start)
	}
	if err := json.Unmarshal(f.Body, v); err != nil {
		return errdefs.With(errdefs.InvalidParameter, fmt.Errorf("decode shim message: %w", err))
	}
	return nil
}

// Error is an error on the wire.
type Error struct {
	Kind    errdefs.Kind
	Message string
	// ExitCode is 126 or 127 when a program could not be executed, else 0.
	ExitCode int `json:",omitempty"`
}

func (e *Error) Error() string { return e.Message }

// NewError returns what the wire carries of err.
func NewError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Kind: errdefs.KindOf(err), Message: err.Error(), ExitCode: e.ExitCode}
	}
	return &Error{Kind: errdefs.KindOf(err), Message: err.Error()}
}
