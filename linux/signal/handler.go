//go:build amd64 || arm64

package signal

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// target is the number of the descriptor that the handler writes to.
//
//lint:ignore U1000 the assembler reads it
var target int32

// handlerAddress and restorerAddress return where the kernel goes when a signal has come, and from there.
func handlerAddress() uintptr
func restorerAddress() uintptr

// sigaction is struct sigaction of the kernel's ABI.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

func catch(fd int, list []syscall.Signal) error {
	const restorer, onStack, restart = 0x4000000, 0x8000000, 0x10000000 // the stack of a goroutine is too small for a signal
	target = int32(fd)
	act := sigaction{handler: handlerAddress(), flags: restorer | onStack | restart, restorer: restorerAddress(), mask: 1<<64 - 1}
	for _, s := range list {
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0); errno != 0 {
			return fmt.Errorf("signal %d: %w", int(s), errno)
		}
	}
	return nil
}
