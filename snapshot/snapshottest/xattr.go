package snapshottest

import (
	"syscall"
	"unsafe"
)

// llistxattr is llistxattr(2), which package syscall lacks.
func llistxattr(path *byte, buf []byte) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_LLISTXATTR, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
