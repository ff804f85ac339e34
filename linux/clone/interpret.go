package clone

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// interpret runs in the child: on the parent's goroutine stack (a private copy), with no runtime. It is the interpreter of processors that
// have none in assembler, and what that one is held against.
//
//go:nosplit
//go:norace
//go:nocheckptr
//go:noinline
func interpret(steps *step, n int, regs *[Registers]uintptr) {
	var remembered syscall.Errno = syscall.ENOENT
	var report [3]uint32
	again := 0
	for i := 0; i < n; {
		s := (*step)(unsafe.Add(unsafe.Pointer(steps), uintptr(i)*unsafe.Sizeof(step{})))
		var errno syscall.Errno
		var r uintptr
		switch s.nr {
		case opFail:
			if errno = remembered; s.args[0] != 0 {
				errno = syscall.Errno(s.args[0])
			}
		case opStore, opRefuse, opRequire:
			value := s.args[1]
			if s.regs&2 != 0 {
				value = regs[value&(Registers-1)]
			}
			if s.nr == opStore {
				*(*int32)(*(*unsafe.Pointer)(unsafe.Pointer(&s.args[0]))) = int32(value)
			} else if same := *(*int64)(*(*unsafe.Pointer)(unsafe.Pointer(&s.args[0]))) == int64(value); same == (s.nr == opRefuse) {
				errno = syscall.EXDEV
			}
		case opFork:
			r, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, s.args[0], unsafe.Sizeof(cloneArgs{}), 0)
			if errno == 0 && r != 0 { // the child goes on; the parent learns its number
				report[2] = uint32(r)
				syscall.RawSyscall(syscall.SYS_WRITE, regs[SyncRegister], uintptr(unsafe.Pointer(&report)), unsafe.Sizeof(report))
				exit()
			}
		default:
			var a [6]uintptr
			for j := range a {
				a[j] = s.args[j]
				if s.regs&(1<<j) != 0 {
					a[j] = regs[a[j]&(Registers-1)]
				}
			}
			r, _, errno = syscall.RawSyscall6(s.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		}
		if errno == 0 {
			if r < s.want {
				exit()
			}
			if s.out >= 0 {
				regs[s.out&(Registers-1)] = r
			}
			if s.onOK != 0 {
				i = int(s.onOK)
			} else {
				i++
			}
			continue
		}
		if errno == syscall.EINTR && again < retries {
			again++
			continue
		}
		if s.ignore[errno/64%2]&(1<<(errno%64)) == 0 {
			report[0], report[1] = uint32(i), uint32(errno)
			syscall.RawSyscall(syscall.SYS_WRITE, regs[SyncRegister], uintptr(unsafe.Pointer(&report)), 8)
			exit()
		}
		if s.remember && errno == syscall.EACCES {
			remembered = errno
		}
		if s.onIgnore != 0 {
			i = int(s.onIgnore)
		} else {
			i++
		}
	}
	exit()
}

//go:nosplit
//go:norace
//go:nocheckptr
func exit() {
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 1, 0, 0)
		*nowhere = 0 // a seccomp filter forbids it: end by a signal
	}
}

// nowhere is what nothing can be written to.
var nowhere *byte
