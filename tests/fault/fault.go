// Package fault stops a daemon under test at any system call by which it changes its data root, or has that call fail.
//
// The daemon is started with a seccomp filter (SECCOMP_RET_USER_NOTIF) that has the kernel ask a Supervisor about each such call of the daemon and of the processes that it starts.
// So every write site is a failpoint, those in libraries and those of code that is yet to be written among them, the daemon under test is the one that is shipped, and no failpoint
// costs it anything. What is written through mapped memory (SQLite's index of its log) has no system call, and no point.
package fault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launcher is what a test binary is called that puts itself under the filter and becomes the daemon.
const launcher = "gantry-fault-launch"

// readsVar, when set, has the launcher ask about reads, too.
const readsVar = "GANTRY_FAULT_READS"

// socketFD is the launcher's end of the socket that takes the listener to the supervisor.
const socketFD = 3

// Main is the launcher's whole life: a test binary that uses a Supervisor begins with it. In any other process it returns at once.
func Main() {
	if os.Args[0] != launcher {
		return
	}
	if err := launch(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "start under the supervisor:", err)
		os.Exit(1)
	}
}

func launch(argv []string) error {
	runtime.LockOSThread()
	path, err := syscall.BytePtrFromString(argv[0])
	if err != nil {
		return err
	}
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return err
	}
	filter := program()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	rights, word := unix.UnixRights(0), []byte{0}
	iov := unix.Iovec{Base: &word[0], Len: 1}
	message := unix.Msghdr{Iov: &iov, Iovlen: 1, Control: &rights[0], Controllen: uint64(len(rights))}
	// From here on a write of this thread, be it the Go runtime's, waits for a supervisor, who has nothing to answer by before the message has come: so no call goes through the runtime.
	// Without WAIT_KILLABLE_RECV the signals by which Go's scheduler interrupts threads would have calls begin anew, and be counted twice.
	listener, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	binary.NativeEndian.PutUint32(rights[unix.CmsgLen(0):], uint32(listener))
	if _, _, errno = unix.RawSyscall(unix.SYS_SENDMSG, socketFD, uintptr(unsafe.Pointer(&message)), 0); errno == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, listener, 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, socketFD, 0, 0)
		_, _, errno = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&env[0])))
	}
	for { // words would be a write
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
}

// program asks about all calls of the table and lets others pass.
func program() []unix.SockFilter {
	const load, jumpEqual, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	prog := []unix.SockFilter{{Code: load, K: 0}} // the number
	for n, f := range calls() {
		if f.kind == Read && os.Getenv(readsVar) == "" {
			continue
		}
		prog = append(prog, unix.SockFilter{Code: jumpEqual, Jf: 1, K: uint32(n)}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	return append(prog, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
}

// Kill, as a policy's answer, kills the daemon before the call.
const Kill syscall.Errno = 1 << 20

// Policy says what comes of a call: 0 lets it pass, Kill kills the daemon before it, and an error fails it.
type Policy func(Call) syscall.Errno

// Supervisor answers for the daemons that it starts, one after the other.
type Supervisor struct {
	Reads bool // policies see reads, too, which takes time: every read of a socket is asked about

	root string

	mu     sync.Mutex // guards policy, and keeps calls one after the other
	policy Policy     // nil: all pass

	serving sync.WaitGroup
}

// New returns the supervisor of what lies below root, the daemon's data root.
func New(root string) *Supervisor { return &Supervisor{root: root} }

// Watch sets the policy for the calls that come from now on; nil lets all pass.
func (s *Supervisor) Watch(p Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy = p
}

// Wrap has a command, which is not started yet, run under the supervisor.
func (s *Supervisor) Wrap(cmd *exec.Cmd) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}); err != nil { // it may fail to start
		return err
	}
	child := os.NewFile(uintptr(pair[1]), "launcher")
	cmd.Args = append([]string{launcher, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/proc/self/exe"
	if s.Reads {
		cmd.Env = append(cmd.Environ(), readsVar+"=1")
	}
	cmd.ExtraFiles = []*os.File{child}
	s.serving.Go(func() {
		listener, err := receive(pair[0])
		_ = unix.Close(pair[0])
		child.Close()
		if err != nil {
			return // the launcher has said why
		}
		defer unix.Close(listener)
		s.serve(listener, cmd)
	})
	return nil
}

// Wait waits until no process is under a filter any more.
func (s *Supervisor) Wait() { s.serving.Wait() }

func receive(socket int) (int, error) {
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
	for errors.Is(err, unix.EINTR) {
		_, n, _, _, err = unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return 0, errors.Join(errors.New("no descriptor came"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

// Sizes and requests of linux/seccomp.h.
const (
	notifSize  = 80
	answerSize = 24
	notifRecv  = 3<<30 | notifSize<<16 | '!'<<8
	notifSend  = 3<<30 | answerSize<<16 | '!'<<8 | 1
)

// serve answers until all processes under the filter have ended.
func (s *Supervisor) serve(listener int, cmd *exec.Cmd) {
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); errors.Is(err, unix.EINTR) {
			continue
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return
		}
		var notif [notifSize]byte
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifRecv, uintptr(unsafe.Pointer(&notif))); errno != 0 {
			continue // it was killed meanwhile
		}
		var answer [answerSize]byte
		copy(answer[:8], notif[:8])
		switch errno := s.judge(notif[8:], cmd); errno {
		case 0:
			binary.NativeEndian.PutUint32(answer[20:], unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
		default:
			binary.NativeEndian.PutUint32(answer[16:], uint32(-int32(errno)))
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifSend, uintptr(unsafe.Pointer(&answer))) // it may be dead
	}
}

// judge has the policy look at a call. notif is struct seccomp_notif from its field pid on.
func (s *Supervisor) judge(notif []byte, cmd *exec.Cmd) syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policy == nil {
		return 0
	}
	var args [6]uint64
	for i := range args {
		args[i] = binary.NativeEndian.Uint64(notif[24+8*i:])
	}
	pid := int(binary.NativeEndian.Uint32(notif))
	c, ok := decode(pid, int(binary.NativeEndian.Uint32(notif[8:])), args, s.root)
	if !ok {
		return 0
	}
	errno := s.policy(c)
	if errno == Kill {
		_ = cmd.Process.Kill()
		return 0 // a call of another process's goes on
	}
	return errno
}

// within returns the path relative to root, if it lies below.
func within(root, path string) (string, bool) {
	path = strings.TrimSuffix(path, " (deleted)")
	rel, ok := strings.CutPrefix(path, root+"/")
	return rel, ok
}
