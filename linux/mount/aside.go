package mount

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// aside starts f on a thread of its own, which may leave the process's mount namespace: it ends with f, and its namespace with it. It
// is never the main thread, which Go lets not end: that would keep its last namespace, and what /proc/self says of mounts would be
// that namespace's.
func aside(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked but below
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		done := make(chan struct{})
		aside(func() {
			defer close(done)
			f()
		})
		<-done // until then nobody else can have the main thread
		runtime.UnlockOSThread()
	}()
}
