// Package quick makes programs that live for milliseconds begin faster. What such a program does for the first time costs more than what it
// does: each page of memory that it touches is a fault, and where page tables are virtual too, tens of microseconds.
//
// On amd64, a program linked with -E gantry/linux/quick.entry begins with a few instructions of this package: its text and data are
// mapped at once, the runtime then has one processor to schedule for, and a heap in huge pages (hugeheap).
package quick

import (
	"os"
	"runtime"
)

// Start has the runtime keep no samples of the heap, calms its monitor, and gives the goroutine that calls it a stack that need not grow step by step, each of which copies it. It is for
// the beginning of main. What the kernel cannot do is left.
func Start() {
	runtime.MemProfileRate = 0
	os.Unsetenv("GOMAXPROCS") // of entry's, for this process alone
	calmMonitor()
	growStack()
}
