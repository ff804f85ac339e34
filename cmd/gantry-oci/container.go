package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/fd"
	"gantry/linux/pty"
	"gantry/oci"
)

// options are the flags that create, run and exec share.
type options struct {
	bundle, console, pidFile string
	detach, keep             bool
	preserve                 int
	process                  string
	tty                      bool
	cwd, user                string
	env                      list
	noNewPrivs               bool
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return fmt.Sprint([]string(*l)) }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// parse reads the verb's flags and returns what follows them, which must be at least n arguments.
func (a *app) parse(f *flag.FlagSet, n int) ([]string, error) {
	if err := f.Parse(a.args); err != nil {
		return nil, err
	}
	if f.NArg() < n {
		return nil, errdefs.New(errdefs.InvalidParameter, "%s: a container ID is missing", a.verb)
	}
	return f.Args(), nil
}

func (a *app) flags() *flag.FlagSet { return flag.NewFlagSet(a.verb, flag.ContinueOnError) }

func (o *options) add(f *flag.FlagSet) {
	f.StringVar(&o.bundle, "bundle", ".", "bundle directory")
	f.StringVar(&o.bundle, "b", ".", "bundle directory")
	f.StringVar(&o.console, "console-socket", "", "socket that gets the terminal's master")
	f.StringVar(&o.pidFile, "pid-file", "", "file that gets the process number")
	f.IntVar(&o.preserve, "preserve-fds", 0, "how many descriptors after 2 to pass on")
	f.BoolVar(&o.detach, "detach", false, "do not wait")
	f.BoolVar(&o.detach, "d", false, "do not wait")
	f.BoolVar(&o.keep, "keep", false, "do not delete the container when it has ended")
	f.Bool("no-pivot", false, "no effect")
	f.Bool("no-new-keyring", false, "no effect")
	f.Bool("no-subreaper", false, "no effect")
}

// maxSpec is how large a config.json may be.
const maxSpec = 16 << 20

func readJSON(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err != nil {
		return err
	}
	if len(data) > maxSpec {
		return errdefs.New(errdefs.InvalidParameter, "%s is larger than %d bytes", path, maxSpec)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return errdefs.New(errdefs.InvalidParameter, "%s: %w", path, err)
	}
	return nil
}

// make creates the container of the bundle and records it.
func (a *app) make(ctx context.Context, id string, o options) (_ *oci.Container, err error) {
	dir, err := a.dir(id)
	if err != nil {
		return nil, err
	}
	bundle, err := filepath.Abs(o.bundle)
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := readJSON(filepath.Join(bundle, "config.json"), &spec); err != nil {
		return nil, err
	}
	if spec.Process != nil && spec.Process.Terminal && o.detach && o.console == "" {
		return nil, errdefs.New(errdefs.InvalidParameter, "a terminal of a detached container needs --console-socket")
	}
	if err := os.MkdirAll(a.root, 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, errdefs.New(errdefs.Conflict, "container with id %s already exists", id)
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	b := oci.Bundle{ID: id, Dir: bundle, Spec: &spec, Preserve: o.preserve, SystemdCgroup: a.systemd}
	if o.detach {
		b.Socket = filepath.Join(dir, "start.sock")
	}
	c, err := oci.Create(ctx, b, oci.Stdio{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		return nil, err
	}
	for _, w := range c.Warnings() {
		a.note("warning", w) // not on standard error, which is the container's
	}
	if err := a.record(dir, c, o); err != nil {
		return nil, errors.Join(err, c.Delete(ctx))
	}
	return c, nil
}

func (a *app) record(dir string, c *oci.Container, o options) error {
	state, err := c.State()
	if err != nil {
		return err
	}
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, ".state.json")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, "state.json")); err != nil {
		return err
	}
	return handOver(c.Init(), o)
}

// handOver writes the pid file and sends the terminal to who asked for it.
func handOver(p *oci.Process, o options) error {
	if p.Console != nil && o.console != "" {
		conn, err := fd.DialUnix(context.Background(), o.console)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := fd.Send(conn, []byte("/dev/ptmx"), p.Console); err != nil {
			return err
		}
	}
	if o.pidFile == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(o.pidFile), "."+filepath.Base(o.pidFile))
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(p.Pid)), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, o.pidFile)
}

// load returns a recorded container.
func (a *app) load(id string) (*oci.Container, oci.State, error) {
	s, err := a.read(id)
	if err != nil {
		return nil, s, err
	}
	c, err := oci.Load(s)
	return c, s, err
}

func (a *app) read(id string) (oci.State, error) {
	var s oci.State
	dir, err := a.dir(id)
	if err != nil {
		return s, err
	}
	err = readJSON(filepath.Join(dir, "state.json"), &s)
	if errors.Is(err, os.ErrNotExist) {
		return s, errdefs.New(errdefs.NotFound, "container %s does not exist", id)
	}
	return s, err
}

func (a *app) create(ctx context.Context) error {
	var o options
	f := a.flags()
	o.add(f)
	args, err := a.parse(f, 1)
	if err != nil {
		return err
	}
	o.detach = true
	_, err = a.make(ctx, args[0], o)
	return err
}

func (a *app) start(ctx context.Context) error {
	args, err := a.parse(a.flags(), 1)
	if err != nil {
		return err
	}
	c, _, err := a.load(args[0])
	if err != nil {
		return err
	}
	return c.Start(ctx)
}

func (a *app) runContainer(ctx context.Context) error {
	var o options
	f := a.flags()
	o.add(f)
	args, err := a.parse(f, 1)
	if err != nil {
		return err
	}
	detached := o.detach
	c, err := a.make(ctx, args[0], options{bundle: o.bundle, console: o.console, pidFile: o.pidFile, preserve: o.preserve, detach: false})
	if err != nil {
		return err
	}
	dir, _ := a.dir(args[0]) // make has checked it
	remove := func() error { return errors.Join(c.Delete(ctx), os.RemoveAll(dir)) }
	if err := c.Start(ctx); err != nil {
		return errors.Join(err, remove())
	}
	if detached {
		return nil
	}
	code, err := foreground(ctx, c.Init())
	if !o.keep {
		err = errors.Join(err, remove())
	}
	if err == nil && code != 0 {
		return exitError(code)
	}
	return err
}

func (a *app) exec(ctx context.Context) error {
	var o options
	f := a.flags()
	o.add(f)
	f.StringVar(&o.process, "process", "", "file with the process as JSON")
	f.StringVar(&o.process, "p", "", "file with the process as JSON")
	f.BoolVar(&o.tty, "tty", false, "give it a terminal")
	f.BoolVar(&o.tty, "t", false, "give it a terminal")
	f.StringVar(&o.cwd, "cwd", "", "working directory")
	f.StringVar(&o.user, "user", "", "UID[:GID]")
	f.StringVar(&o.user, "u", "", "UID[:GID]")
	f.Var(&o.env, "env", "NAME=value")
	f.Var(&o.env, "e", "NAME=value")
	f.BoolVar(&o.noNewPrivs, "no-new-privs", false, "grant no new privileges")
	args, err := a.parse(f, 1)
	if err != nil {
		return err
	}
	c, state, err := a.load(args[0])
	if err != nil {
		return err
	}
	p := *state.Spec.Process
	if o.process != "" {
		p = specs.Process{}
		if err := readJSON(o.process, &p); err != nil {
			return err
		}
	} else {
		p.Args, p.Terminal = args[1:], o.tty
		p.Env = append(append([]string{}, p.Env...), o.env...)
		if o.cwd != "" {
			p.Cwd = o.cwd
		}
		p.NoNewPrivileges = p.NoNewPrivileges || o.noNewPrivs
		if o.user != "" {
			if n, err := fmt.Sscanf(o.user+":0", "%d:%d", &p.User.UID, &p.User.GID); n == 0 {
				return errdefs.New(errdefs.InvalidParameter, "user %q is not UID[:GID]: %w", o.user, err)
			}
		}
	}
	if state.Status() == specs.StateStopped {
		return errdefs.New(errdefs.Conflict, "exec: container %s is not running", args[0])
	}
	proc, err := c.Exec(ctx, &p, oci.ExecOptions{Stdio: oci.Stdio{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, Preserve: o.preserve})
	if err != nil {
		return err
	}
	if err := handOver(proc, o); err != nil {
		return err
	}
	if o.detach {
		return nil
	}
	code, err := foreground(ctx, proc)
	if err == nil && code != 0 {
		return exitError(code)
	}
	return err
}

// foreground connects the process to this one's terminal and signals, and waits for its end.
func foreground(ctx context.Context, p *oci.Process) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	defer signal.Stop(signals)
	var output chan struct{}
	if p.Console != nil {
		restore, err := pty.Raw(os.Stdin)
		if err != nil {
			return 0, err
		}
		defer restore()
		output = make(chan struct{})
		go func() { _, _ = io.Copy(p.Console, os.Stdin) }() // ends with this process
		go func() {
			defer close(output)
			_, _ = io.Copy(os.Stdout, p.Console) // the terminal's last output ends with EIO
		}()
		_ = pty.Follow(p.Console, os.Stdin) // no terminal here: it keeps its own size
	}
	type end struct {
		st  oci.ExitStatus
		err error
	}
	ended := make(chan end, 1)
	go func() {
		st, err := p.Wait(ctx)
		ended <- end{st, err}
	}()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGWINCH {
				if p.Console != nil {
					_ = pty.Follow(p.Console, os.Stdin) // as above
				}
				continue
			}
			if err := p.Signal(s.(syscall.Signal)); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return 0, err
			}
		case e := <-ended:
			if output != nil {
				<-output
			}
			return e.st.Code, e.err
		}
	}
}
