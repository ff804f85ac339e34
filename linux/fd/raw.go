package fd

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DialStream connects to the stream socket at path, of any length, without the poller: for commands that send one message and end.
func DialStream(path string) (*os.File, error) {
	return socket(unix.SOCK_STREAM, path, "connect to", unix.Connect)
}

// SendFile writes data, and the descriptor of f with it, to a socket of DialStream.
func SendFile(conn *os.File, data []byte, f *os.File) error {
	err := control(conn, func(n int) error {
		return control(f, func(passed int) error { return unix.Sendmsg(n, data, unix.UnixRights(passed), nil, unix.MSG_NOSIGNAL) })
	})
	if err != nil {
		return fmt.Errorf("send descriptor to %s: %w", conn.Name(), err)
	}
	return nil
}

// IsOpen reports whether this process has a descriptor of that number.
func IsOpen(n int) bool {
	_, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	return err == nil
}

// SetSubreaper makes this process the parent of its descendants that lose theirs.
func SetSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	return nil
}

// ReapOthers takes the status of every ended child but pid, whose end is another's to see.
func ReapOthers(pid int) error {
	for {
		var info siginfo
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errors.Is(errno, unix.ECHILD) || errno == 0 && (info.pid == 0 || int(info.pid) == pid) {
			return nil
		}
		if errno != 0 {
			return fmt.Errorf("reap children: %w", errno)
		}
		if _, err := syscall.Wait4(int(info.pid), nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) && !errors.Is(err, syscall.ECHILD) {
			return fmt.Errorf("reap children: %w", err)
		}
	}
}

// PacketPair returns a connected pair of sockets for messages, both close-on-exec.
func PacketPair() (a, b *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket"), nil
}

// ReceiveFile reads a message from a blocking socket, and the first descriptor that came with it, or nil; n is 0 when the other end is
// closed.
func ReceiveFile(conn *os.File, data []byte) (n int, f *os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxPassed))
	err = control(conn, func(s int) error {
		var oobn int
		var err error
		for {
			n, oobn, _, _, err = unix.Recvmsg(s, data, oob, unix.MSG_CMSG_CLOEXEC)
			if err != unix.EINTR {
				break
			}
		}
		if err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return err
		}
		for i := range messages {
			nums, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				continue // some other control message
			}
			for _, num := range nums {
				if f == nil {
					f = os.NewFile(uintptr(num), "received")
				} else {
					unix.Close(num)
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, nil, fmt.Errorf("receive: %w", err)
	}
	return n, f, nil
}
