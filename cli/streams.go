package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/moby/term"

	"gantry/client"
)

// session is a connection to the standard streams of a container or exec.
type session struct {
	stream     *client.Stream
	stdin      io.Reader // nil: nothing is sent
	stdout     io.Writer // nil: nothing is read
	stderr     io.Writer
	tty        bool
	detachKeys string
}

// errDetached says that the user typed the detach keys.
var errDetached = errors.New("read escape sequence")

// pump moves data both ways until the output ends, or the input when there is no output, or the user detaches. On a terminal it
// makes ours raw meanwhile.
func (a *app) pump(ctx context.Context, s session) error {
	defer s.stream.Close()
	ended := make(chan os.Signal, 1)
	if s.tty && s.stdin != nil && a.terminalIn() {
		state, err := term.SetRawTerminal(a.stdin.Fd())
		if err != nil {
			return fmt.Errorf("set terminal to raw mode: %w", err)
		}
		defer func() { _ = term.RestoreTerminal(a.stdin.Fd(), state) }()
		signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT) // not without restoring it
	}
	output := make(chan error, 1)
	if s.stdout != nil || s.stderr != nil {
		go func() { output <- s.copyOutput() }()
	}
	input, detached := make(chan struct{}), make(chan struct{})
	if s.stdin != nil {
		go func() {
			if s.copyInput() {
				close(detached)
				return
			}
			_ = s.stream.CloseWrite()
			close(input)
		}()
	}
	for {
		select {
		case err := <-output:
			return err
		case <-detached:
			return errDetached
		case <-input:
			if s.stdout == nil && s.stderr == nil {
				return nil
			}
			input = nil
		case n := <-ended:
			code := 128
			if sig, ok := n.(syscall.Signal); ok {
				code += int(sig)
			}
			return &exitError{code: code}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) copyOutput() error {
	stdout, stderr := s.stdout, s.stderr
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	var err error
	if s.tty {
		_, err = io.Copy(stdout, s.stream)
	} else {
		err = client.Demux(stdout, stderr, s.stream)
	}
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// copyInput sends the input and reports whether it ended with the detach keys. A failed write ends it: the output tells why.
func (s *session) copyInput() (detached bool) {
	in := s.stdin
	if s.tty {
		keys, err := term.ToBytes(s.detachKeys)
		if err == nil && len(keys) > 0 {
			in = term.NewEscapeProxy(in, keys)
		}
	}
	_, err := io.Copy(onlyWriter{s.stream.Conn}, onlyReader{in})
	var esc term.EscapeError
	return errors.As(err, &esc)
}

// onlyReader and onlyWriter hide other methods, so that io.Copy cannot splice around the detach keys.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

// detachKeys is the value of --detach-keys, or that of config.json, or docker's default.
func (a *app) detachKeys(given string) (keys string, err error) {
	keys = given
	if keys == "" {
		keys = a.config().DetachKeys
	}
	if keys == "" {
		return "ctrl-p,ctrl-q", nil
	}
	if _, err := term.ToBytes(keys); err != nil {
		return "", fmt.Errorf("invalid detach keys (%s): %w", keys, err)
	}
	return keys, nil
}

// checkTerminal refuses a terminal in the container whose input is not one here.
func (a *app) checkTerminal(attachStdin, tty bool) error {
	if attachStdin && tty && !a.terminalIn() {
		return errors.New("the input device is not a TTY")
	}
	return nil
}

// size is the size of our terminal; zeros when there is none.
func (a *app) size() (rows, cols uint) {
	f, ok := a.out.(*os.File)
	if !ok {
		return 0, 0
	}
	ws, err := term.GetWinsize(f.Fd())
	if err != nil {
		return 0, 0
	}
	return uint(ws.Height), uint(ws.Width)
}

// followSize gives a container's terminal the size of ours now and whenever it changes. A process that is only just starting has
// no terminal yet, so the first time is tried again for a while.
func (a *app) followSize(ctx context.Context, resize func(ctx context.Context, rows, cols uint) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	set := func() error {
		rows, cols := a.size()
		if rows == 0 && cols == 0 {
			return nil
		}
		return resize(ctx, rows, cols)
	}
	go func() {
		retry := time.NewTimer(0)
		defer retry.Stop()
		for tries := 1; ; {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				_ = set() // the next change, or none, corrects it
			case <-retry.C:
				if set() != nil && tries < 10 {
					retry.Reset(time.Duration(tries) * 10 * time.Millisecond)
					tries++
				}
			}
		}
	}()
	return cancel
}

// forwardSignals sends the signals that we get to a container, until ctx ends. SIGCHLD, SIGPIPE, SIGURG and SIGWINCH are our own
// business. The signals stay caught afterwards: the program is about to end, and signal.Stop waits for half a millisecond.
func (a *app) forwardSignals(ctx context.Context, c *client.Client, id string) {
	got := make(chan os.Signal, 128)
	signal.Notify(got, forwarded()...)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-got:
				n, ok := s.(syscall.Signal)
				if !ok {
					continue
				}
				// The container may be gone already, or not yet started; either way there is nobody to tell.
				_ = c.ContainerKill(ctx, id, signalName(n))
			}
		}
	}()
}

func forwarded() []os.Signal {
	var out []os.Signal
	for n := range signalNames() {
		switch n {
		case syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGWINCH:
		default:
			out = append(out, n)
		}
	}
	return out
}

// signalName is a signal's name without SIG, or its number.
func signalName(n syscall.Signal) string {
	if s, ok := signalNames()[n]; ok {
		return s
	}
	return fmt.Sprint(int(n))
}

func signalNames() map[syscall.Signal]string {
	return map[syscall.Signal]string{
		syscall.SIGHUP: "HUP", syscall.SIGINT: "INT", syscall.SIGQUIT: "QUIT", syscall.SIGILL: "ILL", syscall.SIGTRAP: "TRAP",
		syscall.SIGABRT: "ABRT", syscall.SIGBUS: "BUS", syscall.SIGFPE: "FPE", syscall.SIGKILL: "KILL", syscall.SIGUSR1: "USR1",
		syscall.SIGSEGV: "SEGV", syscall.SIGUSR2: "USR2", syscall.SIGPIPE: "PIPE", syscall.SIGALRM: "ALRM", syscall.SIGTERM: "TERM",
		syscall.SIGCHLD: "CHLD", syscall.SIGCONT: "CONT", syscall.SIGSTOP: "STOP", syscall.SIGTSTP: "TSTP", syscall.SIGTTIN: "TTIN",
		syscall.SIGTTOU: "TTOU", syscall.SIGURG: "URG", syscall.SIGXCPU: "XCPU", syscall.SIGXFSZ: "XFSZ", syscall.SIGVTALRM: "VTALRM",
		syscall.SIGPROF: "PROF", syscall.SIGWINCH: "WINCH", syscall.SIGIO: "IO", syscall.SIGSYS: "SYS",
	}
}
