package clone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"gantry/linux/fd"
)

// The runtime's hooks around a fork, the same that package syscall calls: no signal is delivered between the two, and a stack that
// wants to grow crashes instead of confusing parent and child.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// cloneArgs is struct clone_args of clone3(2), version 2 (Linux 5.7).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// Options are the circumstances of Start.
type Options struct {
	Namespaces   uint64   // CLONE_NEW* flags of namespaces to be born in
	Cgroup       *os.File // directory of a v2 cgroup to be born in, or nil
	PidNamespace *os.File // pid namespace (or a pidfd of a process in it) to be born in, or nil
	Preserve     int      // descriptors from 3 on that the program inherits
}

// Child is a process that runs a script.
type Child struct {
	Pid    int
	Pidfd  *os.File
	Sync   *os.File   // the parent's end of the socket of messages between the two
	script *Script    // what it runs
	steps  []StepName // instead of a script, of another process's child
	first  int        // the number of the first of steps

	listener int // number that a seccomp listener has in the child, once it has told of it
}

// StepName says what a step of a script is.
type StepName struct {
	What string // what the step is for
	Call string // its system call
}

// Failure is a step that failed in the child.
type Failure struct {
	What  string        // the step's purpose, as Script.For had it
	Call  string        // the system call's name
	Step  int           // the step's number
	Errno syscall.Errno // why
}

func (e *Failure) Error() string {
	if e.What == "" {
		return fmt.Sprintf("%s: %v", e.Call, e.Errno)
	}
	return fmt.Sprintf("%s: %s: %v", e.What, e.Call, e.Errno)
}

// Unwrap returns the errno.
func (e *Failure) Unwrap() error { return e.Errno }

// SyncRegister holds the child's end of the socket while a script runs. Scripts must leave it free: it is the last register.
const SyncRegister Reg = Registers - 1

// Start clones a child that runs s, which it does once. On return the child is running.
func Start(s *Script, o Options) (*Child, error) {
	switch {
	case len(s.patch) != 0:
		return nil, errors.New("clone: script goes on at a label that was never placed")
	case s.spent:
		return nil, errors.New("clone: script has been started before")
	}
	args := cloneArgs{
		flags:      unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND | o.Namespaces,
		exitSignal: uint64(unix.SIGCHLD),
	}
	if o.Cgroup != nil {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(Number(o.Cgroup))
	}
	leave := func() error { return nil }
	if o.PidNamespace != nil {
		var err error
		if leave, err = enterPidNamespace(o.PidNamespace); err != nil {
			return nil, err
		}
	}
	others := s.others(o.Preserve)
	steps := unsafe.SliceData(s.steps)
	if cap(s.steps) != usual {
		steps = placeAll(s.room(), s.steps)
	}
	l := place(s.room(), launch{code: interpreter(), steps: steps, nsteps: len(s.steps), pidfd: -1, args: args})
	if d := disguised; d != nil {
		l.code, l.first, l.nfirst = d.code, placeAll(s.room(), d.steps), len(d.steps)
		others = others.without(uint32(Number(d.exe)))
	}
	if s.memory.err != nil {
		return nil, errors.Join(s.memory.err, leave())
	}

	// Exclusive, so that no other child of this process is cloned while both ends are open: it would hold the socket open, and its
	// closing is how the parent learns of the execve.
	syscall.ForkLock.Lock()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		syscall.ForkLock.Unlock()
		return nil, errors.Join(fmt.Errorf("clone: socketpair: %w", err), leave())
	}
	l.regs[SyncRegister] = uintptr(pair[1])
	ranges := others.without(uint32(pair[1]))
	l.others, l.nothers = placeAll(s.room(), ranges), len(ranges)
	l.prepare(s.memory)
	pid, errno := fork(l)
	pidfd := l.pidfd
	unix.Close(pair[1])
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(o)
	if errno == 0 {
		s.spent, s.steps = true, nil
		s.memory.release()
	}
	if err := leave(); err != nil {
		if errno == 0 {
			unix.PidfdSendSignal(int(pidfd), unix.SIGKILL, nil, 0)
			unix.Wait4(int(pid), nil, 0, nil)
			unix.Close(int(pidfd))
		}
		unix.Close(pair[0])
		return nil, err
	}
	if errno != 0 {
		unix.Close(pair[0])
		return nil, fmt.Errorf("clone: %w", errno)
	}
	for _, n := range []int{int(pidfd), pair[0]} {
		if err := unix.SetNonblock(n, true); err != nil {
			return nil, fmt.Errorf("clone: %w", err)
		}
	}
	c := &Child{Pid: int(pid), Pidfd: os.NewFile(uintptr(pidfd), "pidfd"), Sync: os.NewFile(uintptr(pair[0]), "sync"), script: s}
	if s.forks {
		if err := c.follow(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// follow goes over from a child that ends at its Fork step to the one that goes on.
func (c *Child) follow() error {
	var failed error
	pid, ready := 0, false
	for failed == nil && (pid == 0 || !ready) { // the two messages come from two processes
		var buf [12]byte
		n, err := c.read(buf[:])
		switch {
		case n == len(buf):
			pid = int(binary.NativeEndian.Uint32(buf[8:]))
		case n == 8:
			failed = c.failure([8]byte(buf[:8]))
		case n > 0:
			ready = true
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET):
			failed = fmt.Errorf("read from child: %w", err)
		default:
			failed = errors.New("clone: the child ended before it forked")
		}
	}
	if failed != nil { // it ends by itself, or with its parent's end of the socket
		_ = fd.Signal(c.Pidfd, syscall.SIGKILL)
	}
	_, err := fd.Wait(c.Pidfd)
	failed = errors.Join(failed, err)
	c.Pidfd.Close()
	if pid != 0 { // a child of ours from here on: its number is its until we take its status
		c.Pid = pid
		if c.Pidfd, err = fd.Pidfd(pid); err != nil {
			failed = errors.Join(failed, err)
		} else if failed != nil {
			_ = fd.Signal(c.Pidfd, syscall.SIGKILL)
			_, err = fd.Wait(c.Pidfd)
			failed = errors.Join(failed, err)
			c.Pidfd.Close()
		}
	}
	if failed == nil {
		failed = c.Go()
	}
	if failed != nil {
		c.Sync.Close()
	}
	return failed
}

// enterPidNamespace makes the children of this thread be born in target, and returns what undoes that.
func enterPidNamespace(target *os.File) (leave func() error, err error) {
	own, err := os.Open("/proc/thread-self/ns/pid")
	if err != nil {
		return nil, fmt.Errorf("clone: %w", err)
	}
	runtime.LockOSThread()
	if err := unix.Setns(Number(target), unix.CLONE_NEWPID); err != nil {
		runtime.UnlockOSThread()
		own.Close()
		return nil, fmt.Errorf("clone: join pid namespace: %w", err)
	}
	return func() error {
		defer own.Close()
		if err := unix.Setns(Number(own), unix.CLONE_NEWPID); err != nil {
			return fmt.Errorf("clone: return from pid namespace: %w", err) // the thread stays locked and ends with its goroutine
		}
		runtime.UnlockOSThread()
		return nil
	}, nil
}

// interpreter returns where the interpreter in assembler is; 0 where there is none.
var interpreter = interpreterAddress

// launch is all that a child begins with. It is in the script's memory.
type launch struct {
	args         cloneArgs
	code         uintptr  // the interpreter
	others       *fdRange // what to close before all else
	nothers      int
	first, steps *step // what to run then
	nfirst       int
	nsteps       int
	pidfd        int32
	regs         [Registers]uintptr
}

// stackSize is what the interpreter in assembler makes do with, and more.
const stackSize = 1024

// prepare settles what the child has of this process's memory. An interpreter in assembler needs m alone, with a stack in it; that in Go runs on a copy of the goroutine's.
func (l *launch) prepare(m *memory) {
	l.args.pidfd = uint64(uintptr(unsafe.Pointer(&l.pidfd)))
	if l.code == 0 {
		return
	}
	l.args.stack, l.args.stackSize = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(m.take(stackSize))))), stackSize
	if withholds {
		but := m.blocks
		if disguised != nil {
			but = slices.Concat(but, disguised.memory.blocks)
		}
		withhold(unix.MADV_DONTFORK, but...)
	}
}

// fork clones. In the child it does not return.
//
//go:noinline
//go:norace
//go:nocheckptr
func fork(l *launch) (pid uintptr, errno syscall.Errno) {
	beforeFork()
	if l.code != 0 {
		if pid = begin(l); pid > ^uintptr(4095) {
			pid, errno = 0, syscall.Errno(-pid)
		}
	} else {
		pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&l.args)), unsafe.Sizeof(l.args), 0)
		if errno == 0 && pid == 0 {
			for i := range l.nothers {
				r := (*fdRange)(unsafe.Add(unsafe.Pointer(l.others), uintptr(i)*unsafe.Sizeof(fdRange{})))
				syscall.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(r.first), uintptr(r.last), 0)
			}
			interpret(l.steps, l.nsteps, &l.regs)
		}
	}
	afterFork()
	return pid, errno
}

// Listen is a message of the child: what Ready sends, or the end of the script.
type Message int

// Messages.
const (
	Ready     Message = iota + 1 // the script has come to a Ready step
	Executed                     // the socket closed: execve has succeeded, or the child was killed
	Listening                    // the script has loaded a seccomp filter with a listener, and waits for Go
	Executing                    // the script has come to its Executing step: whether execve succeeds is not going to be told
)

// read reads a message, or the end. The kernel may tell of the end of a seqpacket socket when the last message comes just then (unix_dgram_recvmsg looks for the one before the other): what comes before the end is there when it is asked again.
func (c *Child) read(buf []byte) (n int, err error) {
	if n, err = c.Sync.Read(buf); errors.Is(err, io.EOF) {
		n, err = c.Sync.Read(buf)
	}
	return n, err
}

// Next waits for the child's next message. A step that failed is a *Failure.
func (c *Child) Next() (Message, error) {
	var buf [8]byte
	n, err := c.read(buf[:])
	switch {
	case n == len(buf):
		return 0, c.failure(buf)
	case n == announced:
		c.listener = int(int32(binary.NativeEndian.Uint32(buf[:])))
		return Listening, nil
	case n == executing:
		return Executing, nil
	case n > 0:
		return Ready, nil
	case err != nil && n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return Executed, nil
	case err != nil:
		return 0, fmt.Errorf("read from child: %w", err)
	}
	return Executed, nil
}

// NextFile waits for a descriptor that a SendFile step passes.
func (c *Child) NextFile(name string) (*os.File, error) {
	raw, err := c.Sync.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("receive %s from child: %w", name, err)
	}
	var buf [8]byte
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var inner error
	err = raw.Read(func(s uintptr) bool {
		n, oobn, _, _, inner = unix.Recvmsg(int(s), buf[:], oob, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(inner, unix.EAGAIN)
	})
	if err = errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("receive %s from child: %w", name, err)
	}
	if n == len(buf) {
		return nil, c.failure(buf)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive %s: the child ended early", name)
	}
	files, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("receive %s from child: no descriptor came", name)
	}
	_ = unix.SetNonblock(files[0], true) // a terminal: Go's poller waits for it
	return os.NewFile(uintptr(files[0]), name), nil
}

// Go lets a child that waits at a Ready step continue.
func (c *Child) Go() error {
	if _, err := c.Sync.Write([]byte{1}); err != nil {
		return fmt.Errorf("write to child: %w", err)
	}
	return nil
}

// lookInto is what LookInto says in the place of Go.
const lookInto = 2

// LookInto lets this process look into a child that waits at a visible ReadyListen step, at socket, until it says LookAway on the connection
// that it gets, or has closed it. os.ErrNotExist: the child waits no longer.
func LookInto(socket string) (*os.File, error) {
	conn, err := fd.DialPacket(socket)
	if err != nil {
		return nil, err
	}
	if _, err = conn.Write([]byte{lookInto}); err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if ended(err) {
		err = os.ErrNotExist
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("look into child: %w", err)
	}
	return conn, nil
}

// LookAway closes a connection of LookInto when nothing can look into the child any more.
func LookAway(conn *os.File) error {
	_, err := conn.Write([]byte{lookInto})
	if err == nil {
		_, err = conn.Read(make([]byte, 1)) // its end
	}
	if ended(err) {
		err = nil // or that of the child
	}
	return errors.Join(err, conn.Close())
}

// ended reports whether an error is the end of a connection.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// failure decodes the report of a failed step, as the child wrote it to its socket.
func (c *Child) failure(report [8]byte) error {
	i, errno := int(binary.NativeEndian.Uint32(report[:])), syscall.Errno(binary.NativeEndian.Uint32(report[4:]))
	if n := i &^ ofFirst; i&ofFirst != 0 && disguised != nil && n < len(disguised.names) {
		return &Failure{What: "let go of the program's file", Call: disguised.names[n], Step: n, Errno: errno}
	}
	steps := c.steps
	if c.script != nil {
		steps = c.script.Names()
	}
	n := i - c.first
	if n < 0 || n >= len(steps) {
		return errors.New("child sent an unreadable report")
	}
	return &Failure{What: steps[n].What, Call: steps[n].Call, Step: i, Errno: errno}
}

// Rest returns, for Attach, what the reports of a child refer to that has come to its ReadyListen step, and the number of the first.
func (c *Child) Rest() (steps []StepName, first int) {
	if c.script == nil {
		return c.steps, c.first
	}
	return c.script.Names()[c.script.listen:], c.script.listen
}

// Attach returns a child that another process started, for Next and Go, by a connection to the listener that it waits at.
func Attach(pid int, pidfd, sync *os.File, steps []StepName, first int) *Child {
	return &Child{Pid: pid, Pidfd: pidfd, Sync: sync, steps: steps, first: first}
}

// fdRange is a range of descriptor numbers, both ends included.
type fdRange struct{ first, last uint32 }

type fdRanges []fdRange

// others returns the descriptors that the script has no use for, which the child closes before anything else: one that waits long
// must not hold open what belongs to another.
func (s *Script) others(preserve int) fdRanges {
	list := fdRanges{{uint32(3 + preserve), 1<<32 - 1}}
	for _, n := range s.inherited {
		list = list.without(n)
	}
	return list
}

// without returns the ranges with n taken out.
func (r fdRanges) without(n uint32) fdRanges {
	for i, one := range r {
		if n < one.first || n > one.last {
			continue
		}
		var parts fdRanges
		if n > one.first {
			parts = append(parts, fdRange{one.first, n - 1})
		}
		if n < one.last {
			parts = append(parts, fdRange{n + 1, one.last})
		}
		return slices.Concat(r[:i], parts, r[i+1:])
	}
	return r
}
