package fd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPassed is the most descriptors one message carries; the kernel's own limit (SCM_MAX_FD) is 253.
const maxPassed = 64

// Send writes data and descriptors of files as one message to c. The receiver gets its own descriptors; the caller keeps (and
// closes) its. data must not be empty.
func Send(c *net.UnixConn, data []byte, files ...*os.File) error {
	if len(files) > maxPassed {
		return fmt.Errorf("send descriptors: %d are more than %d", len(files), maxPassed)
	}
	var oob []byte
	if len(files) > 0 {
		nums := make([]int, len(files))
		for i, f := range files {
			nums[i] = int(f.Fd())
		}
		oob = unix.UnixRights(nums...)
	}
	n, _, err := c.WriteMsgUnix(data, oob, nil)
	if err != nil {
		return fmt.Errorf("send descriptors: %w", err)
	}
	if n < len(data) { // a stream socket took only the beginning: the descriptors went with it
		if _, err := c.Write(data[n:]); err != nil {
			return fmt.Errorf("send descriptors: %w", err)
		}
	}
	return nil
}

// Peer returns the process that connected to the other end of c or, where this end connected, the one that listens there; 0 where it has no number here.
func Peer(c *net.UnixConn) (pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("peer of a socket: %w", err)
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(s uintptr) { cred, err = unix.GetsockoptUcred(int(s), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return 0, fmt.Errorf("peer of a socket: %w", err)
	}
	return int(cred.Pid), nil
}

// Receive reads at most len(data) bytes and the descriptors that came with them, all close-on-exec. It returns io.EOF through the
// connection's Read semantics: n == 0 and no error means that the peer has closed.
func Receive(c *net.UnixConn, data []byte) (n int, files []*os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxPassed))
	n, oobn, flags, _, err := c.ReadMsgUnix(data, oob) // ReadMsgUnix asks for MSG_CMSG_CLOEXEC
	if err != nil {
		return 0, nil, fmt.Errorf("receive descriptors: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, nil, fmt.Errorf("receive descriptors: %w", err)
	}
	for i := range messages {
		nums, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // some other control message
		}
		for _, num := range nums {
			files = append(files, os.NewFile(uintptr(num), "received"))
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		for _, f := range files {
			f.Close()
		}
		return 0, nil, fmt.Errorf("receive descriptors: more than %d came", maxPassed)
	}
	return n, files, nil
}

// short returns an address of the socket at path that is never longer than a socket address may be, and the directory that must
// stay open while the address is in use (nil when none is needed).
func short(path string) (string, *os.File, error) {
	if len(path) < 108 {
		return path, nil, nil
	}
	dir, err := Dir(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path), dir, nil
}

// DialUnix connects to the stream socket at path, of any length.
func DialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	addr, dir, err := short(path)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	if dir != nil {
		defer dir.Close()
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return c.(*net.UnixConn), nil
}

// Serves reports, as an error, that no stream socket is open at path; a path that begins with @ is an abstract name. Whoever serves a
// socket in the file system does not notice.
func Serves(path string) error {
	kind := unix.SOCK_DGRAM // which fits none of stream, and the kernel tells that apart from a socket that nobody has open
	abstract := strings.HasPrefix(path, "@")
	if abstract {
		kind = unix.SOCK_STREAM
	}
	f, err := socket(kind, path, "connect to", unix.Connect)
	if err == nil {
		err = f.Close()
		if !abstract {
			err = fmt.Errorf("connect to %s: %w", path, unix.EPROTOTYPE)
		}
		return err
	}
	if !abstract && errors.Is(err, unix.EPROTOTYPE) {
		return nil
	}
	return err
}

// ListenUnix makes a stream socket at path, of any length. The socket file is not removed when the listener is closed.
func ListenUnix(path string) (*net.UnixListener, error) {
	addr, dir, err := short(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if dir != nil {
		defer dir.Close()
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: addr, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// ListenPacket makes a listening socket of messages (SOCK_SEQPACKET) at path, of any length. It is blocking: for a child that has no
// poller.
func ListenPacket(path string) (*os.File, error) {
	return packet(path, "listen on", func(n int, a unix.Sockaddr) error {
		if err := unix.Bind(n, a); err != nil {
			return err
		}
		return unix.Listen(n, 4)
	})
}

// DialPacket connects to a socket made by ListenPacket.
func DialPacket(path string) (*os.File, error) { return packet(path, "connect to", unix.Connect) }

func packet(path, what string, use func(n int, a unix.Sockaddr) error) (*os.File, error) {
	return socket(unix.SOCK_SEQPACKET, path, what, use)
}

func socket(kind int, path, what string, use func(n int, a unix.Sockaddr) error) (*os.File, error) {
	addr, dir, err := short(path)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	if dir != nil {
		defer func() { _ = dir.Close() }() // a handle only
	}
	n, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	if err := use(n, &unix.SockaddrUnix{Name: addr}); err != nil {
		unix.Close(n)
		return nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	return os.NewFile(uintptr(n), path), nil
}

// ListenDatagram makes a socket of datagrams at path, of any length. The socket file is not removed when it is closed.
func ListenDatagram(path string) (*net.UnixConn, error) {
	addr, dir, err := short(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if dir != nil {
		defer dir.Close()
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return c, nil
}

// DialDatagram returns a socket whose datagrams go to the one at path; a path that begins with @ is an abstract name.
func DialDatagram(path string) (*os.File, error) {
	return socket(unix.SOCK_DGRAM, path, "connect to", unix.Connect)
}
