package command

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"

	"gantry/linux/fd"
	"gantry/linux/pty"
	"gantry/linux/signal"
	"gantry/oci"
)

// foreground stands between a process and who called this one: signals, the terminal, the end.
type foreground struct {
	p       *oci.Process
	signals *signal.Catcher
	restore func()
	output  chan struct{} // closed when the terminal has said all; nil without one
}

// forwarded are the signals that go to the process: all but those that tell of this process's own faults, and the few it acts on.
func forwarded() []syscall.Signal {
	list := []syscall.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGALRM,
		syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGIO, syscall.SIGPWR, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGVTALRM,
		syscall.SIGSYS, syscall.SIGPIPE, syscall.SIGTRAP, syscall.SIGABRT,
	}
	for n := syscall.Signal(34); n <= 64; n++ { // real-time ones
		list = append(list, n)
	}
	return list
}

// watch takes over the signals before the process runs, so that none is lost. reap makes this process the parent of what the
// container's processes leave behind.
func watch(p *oci.Process, reap bool) (*foreground, error) {
	list := forwarded()
	if reap && fd.SetSubreaper() == nil {
		list = append(list, syscall.SIGCHLD)
	}
	c, err := signal.Catch(list...)
	return &foreground{p: p, signals: c, restore: func() {}}, err
}

// terminal connects the process's terminal with this one's.
func (f *foreground) terminal() error {
	if f.p.Console == nil {
		return nil
	}
	var err error
	if f.restore, err = pty.Raw(os.Stdin); err != nil {
		return err
	}
	_ = pty.Follow(f.p.Console, os.Stdin) // no terminal here: it keeps its own size
	f.output = make(chan struct{})
	// One of these and who waits for signals are in system calls most of the time. With the one processor of a quick start the other would come to
	// its turn only when the runtime's monitor looks.
	runtime.GOMAXPROCS(4)
	go func() { _, _ = io.Copy(f.p.Console, os.Stdin) }() // ends with this process
	go func() {
		defer close(f.output)
		_, _ = io.Copy(os.Stdout, f.p.Console) // the terminal's last output ends with EIO
	}()
	return nil
}

// wait returns the process's exit code.
func (f *foreground) wait(ctx context.Context) (int, error) {
	if err := f.terminal(); err != nil {
		return 0, err
	}
	defer func() { f.restore() }()
	for ended := false; !ended; {
		var caught []syscall.Signal
		var err error
		if caught, ended, err = f.signals.Wait(f.p.Pidfd); err != nil {
			return 0, err
		}
		for _, s := range caught {
			if err := f.handle(s); err != nil {
				return 0, err
			}
		}
	}
	st, err := f.p.Wait(ctx)
	if f.output != nil {
		<-f.output
	}
	return st.Code, err
}

func (f *foreground) handle(s syscall.Signal) error {
	switch s {
	case syscall.SIGWINCH:
		if f.p.Console != nil {
			_ = pty.Follow(f.p.Console, os.Stdin) // no terminal here: as above
		}
		return nil
	case syscall.SIGCHLD:
		return fd.ReapOthers(f.p.Pid)
	}
	if err := f.p.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
