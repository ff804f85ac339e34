// Package signal reads signals' names, and catches signals with one system call each. The standard library's os/signal has the Go runtime hand every signal that is
// asked for to a thread of its own and back, which is two switches of threads a signal: most of what a command takes that forwards all sixty
// of them and runs for a few milliseconds.
package signal

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Catcher gets signals.
type Catcher struct{ pipe int }

// Catch takes the signals over for the rest of this process's life: they neither end nor stop it, and the Catcher gets them. It is for
// programs that have one Catcher, and not for signals that the Go runtime itself acts on: those of faults, SIGURG and SIGPROF.
func Catch(list ...syscall.Signal) (*Catcher, error) {
	var pair [2]int
	if err := unix.Pipe2(pair[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("catch signals: pipe: %w", err)
	}
	if err := catch(pair[1], list); err != nil {
		return nil, fmt.Errorf("catch signals: %w", err)
	}
	return &Catcher{pair[0]}, nil
}

// Wait blocks, with its thread, until signals have come, which it returns, or f is readable.
func (c *Catcher) Wait(f *os.File) (signals []syscall.Signal, readable bool, err error) {
	defer runtime.KeepAlive(f)
	p := []unix.PollFd{{Fd: int32(c.pipe), Events: unix.POLLIN}, {Fd: int32(f.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(p, -1); !errors.Is(err, unix.EINTR) {
			if err != nil {
				return nil, false, fmt.Errorf("wait for signals: %w", err)
			}
			break
		}
	}
	if p[0].Revents != 0 {
		var buf [256]byte
		n, err := unix.Read(c.pipe, buf[:])
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return nil, false, fmt.Errorf("take caught signals: %w", err)
		}
		for _, b := range buf[:max(n, 0)] {
			signals = append(signals, syscall.Signal(b))
		}
	}
	return signals, p[1].Revents != 0, nil
}
