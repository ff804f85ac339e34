//go:build !amd64 && !arm64

package signal

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func catch(fd int, list []syscall.Signal) error {
	caught := make(chan os.Signal, 256)
	signals := make([]os.Signal, len(list))
	for i, s := range list {
		signals[i] = s
	}
	signal.Notify(caught, signals...)
	go func() {
		for s := range caught {
			_, _ = unix.Write(fd, []byte{byte(s.(syscall.Signal))}) // one that finds the pipe full is lost
		}
	}()
	return nil
}
