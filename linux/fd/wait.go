package fd

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Exit is how a child ended.
type Exit struct {
	Code       int            // exit code, when Signal is zero
	Signal     syscall.Signal // what killed it
	CoreDumped bool
}

// siginfo is siginfo_t as waitid fills it in.
type siginfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
	_                  [100]byte
}

// Wait waits for the child of a non-blocking pidfd to end and takes its status (it stops being a zombie). No thread waits meanwhile.
func Wait(pidfd *os.File) (Exit, error) {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return Exit{}, fmt.Errorf("wait for process: %w", err)
	}
	var info siginfo
	var failed error
	err = c.Read(func(n uintptr) bool {
		info = siginfo{}
		for {
			_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, n, uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG, 0, 0)
			switch {
			case errno == unix.EINTR:
				continue
			case errno == unix.EAGAIN:
				return false
			case errno != 0:
				failed = errno
			}
			return failed != nil || info.pid != 0
		}
	})
	runtime.KeepAlive(pidfd)
	if err = errors.Join(failed, err); err != nil {
		return Exit{}, fmt.Errorf("wait for process: %w", err)
	}
	const exited, dumped = 1, 3 // CLD_EXITED, CLD_DUMPED
	if info.code == exited {
		return Exit{Code: int(info.status)}, nil
	}
	return Exit{Signal: syscall.Signal(info.status), CoreDumped: info.code == dumped}, nil
}
