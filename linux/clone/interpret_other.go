//go:build !amd64

package clone

import "syscall"

func interpreterAddress() uintptr { return 0 }

func interpreterCode() []byte { return nil }

// begin has no interpreter to begin with, and is not called.
func begin(*launch) uintptr { return ^uintptr(syscall.ENOSYS) + 1 }
