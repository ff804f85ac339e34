package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/fd"
	"gantry/oci"
)

const (
	notifyDir  = "/run/notify" // in the container
	notifyName = "notify.sock"
	// maxNotice is how much of one message of a container's is read.
	maxNotice = 4096
	// barrierTime is how long a service manager may take to come to the end of what it was told.
	barrierTime = 30 * time.Second
)

// notifier passes on to the service manager that this call was started by (sd_notify(3)) that a container is ready. The container tells
// of it on a socket of its own: of all that it says, no more than READY goes on.
type notifier struct {
	host string // the service manager's socket
	path string // the container's, on the host
	conn *net.UnixConn
}

// notifierOf returns the notifier of the container that is kept in dir, or nil if no service manager asks.
func notifierOf(dir string) *notifier {
	host := os.Getenv("NOTIFY_SOCKET")
	if host == "" {
		return nil
	}
	return &notifier{host: host, path: filepath.Join(dir, "notify", notifyName)}
}

// prepare gives a container that is to be made the directory of its socket. The socket itself comes with listen.
func (n *notifier) prepare(s *specs.Spec) error {
	dir := filepath.Dir(n.path)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: notifyDir, Source: dir, Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"}})
	s.Process.Env = append(s.Process.Env, "NOTIFY_SOCKET="+notifyDir+"/"+notifyName)
	return nil
}

// listen makes the socket, before the program runs.
func (n *notifier) listen() error {
	var err error
	if n.conn, err = fd.ListenDatagram(n.path); err != nil {
		return err
	}
	return os.Chmod(n.path, 0o777) // for any user of the container's
}

func (n *notifier) close() {
	if n != nil && n.conn != nil {
		n.conn.Close()
	}
}

// withdraw takes the socket of a start that failed away, for the next.
func (n *notifier) withdraw() {
	if n != nil && n.conn != nil {
		n.close()
		_ = os.Remove(n.path) // it may go with the container's directory
	}
}

// forward waits until the container is ready, tells the service manager, and that mainPid is the process to watch. It returns without a
// word when the container ends before that.
func (n *notifier) forward(ctx context.Context, p *oci.Process, mainPid int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = p.Wait(ctx) // who cares for the status asks, too
		cancel()
	}()
	stop := context.AfterFunc(ctx, func() { _ = n.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	ready, err := n.await()
	if ready == nil || err != nil {
		return err
	}
	host, err := fd.DialDatagram(n.host)
	if err != nil {
		return err
	}
	defer host.Close()
	for _, line := range []string{string(ready), "MAINPID=" + strconv.Itoa(mainPid)} {
		if _, err := host.Write([]byte(line + "\n")); err != nil {
			return fmt.Errorf("notify %s: %w", n.host, err)
		}
	}
	return barrier(ctx, host)
}

// await returns the line by which the container says that it is ready; nil when it ends first.
func (n *notifier) await() ([]byte, error) {
	buf := make([]byte, maxNotice)
	for {
		size, err := n.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) { // it has ended: what it said last may be unread
			size, err = n.unread(buf)
		}
		if size == 0 || err != nil {
			if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EAGAIN) {
				err = nil
			}
			return nil, err
		}
		for line := range bytes.SplitSeq(buf[:size], []byte{'\n'}) {
			if bytes.HasPrefix(line, []byte("READY=")) {
				return line, nil
			}
		}
	}
}

// unread reads a message that is there already.
func (n *notifier) unread(buf []byte) (size int, err error) {
	raw, err := n.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(s uintptr) { size, _, err = syscall.Recvfrom(int(s), buf, syscall.MSG_DONTWAIT) })
	return max(size, 0), errors.Join(err, cerr)
}

// barrier waits until the service manager has dealt with all that it was told, which it shows by closing a pipe. One that does not know
// this way to ask is waited for in vain, and for a time only.
func barrier(ctx context.Context, host *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = fd.SendFile(host, []byte("BARRIER=1"), w)
	w.Close()
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(barrierTime)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, _ = r.Read(make([]byte, 1)) // its end is the answer
	return nil
}
