// Package quick makes programs that live for milliseconds begin faster. What such a program does for the first time costs more than what it
// does: each page of memory that it touches is a fault, and where page tables are virtual too, tens of microseconds.
package quick

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is what one entry of the middle page table maps.
const hugePage = 2 << 20

var inHeap *[64]byte

// Start has the runtime keep no samples of the heap, calms its monitor, gives the heap one huge page for all that a short life needs, and the goroutine that calls it a stack that need not grow step
// by step, each of which copies it. It is for the beginning of main. What the kernel cannot do is left.
func Start() {
	runtime.MemProfileRate = 0
	os.Unsetenv("GOMAXPROCS") // of entry's, for this process alone
	calmMonitor()
	growStack()
	inHeap = new([64]byte)
	at := uintptr(unsafe.Pointer(inHeap)) &^ (hugePage - 1)
	// What is there already moves into the huge page. The next one is for who needs more.
	_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, at, 2*hugePage, unix.MADV_HUGEPAGE)
	_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, at, hugePage, unix.MADV_COLLAPSE)
}
