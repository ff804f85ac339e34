package bridge

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"gantry/errdefs"
)

// Lock takes the name of a bridge for this process, for as long as the file is open. Names are the network namespace's own,
// so the lock has its number, too.
func Lock(name string) (*os.File, error) {
	ns, err := os.Readlink("/proc/thread-self/ns/net") // "net:[4026531840]"
	if err != nil {
		return nil, fmt.Errorf("lock bridge %s: %w", name, err)
	}
	path := "/run/lock/gantry-" + strings.Trim(strings.TrimPrefix(ns, "net:"), "[]") + "-" + name
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		return nil, fmt.Errorf("lock bridge %s: %w", name, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock bridge %s: %w", name, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errdefs.New(errdefs.Conflict, "bridge %s belongs to another daemon: choose another name", name)
		}
		return nil, fmt.Errorf("lock bridge %s: %w", name, err)
	}
	return f, nil
}
