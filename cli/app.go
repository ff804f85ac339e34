// Package cli is the gantry command line. It takes docker's commands and flags, and answers with docker's output, exit codes and
// error texts. There is one file per command; format.go prints tables and templates, flags.go has the kinds of flags.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/term"
	"github.com/spf13/pflag"

	"gantry/client"
)

// Version and commit of the program; the linker may set them with -X.
//
//nolint:gochecknoglobals // only the linker writes to them
var (
	Version = "0.1.0-dev"
	Commit  = "unknown"
	BuiltAt = "unknown"
)

// Env is what the program is started with.
type Env struct {
	Args   []string // with the program's name first
	Stdin  *os.File
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
}

// app is one run of the program.
type app struct {
	name   string // the program's name in messages: gantry, or docker when called so
	stdin  *os.File
	out    io.Writer
	err    io.Writer
	getenv func(string) string
	global globals

	api *client.Client
	cfg *configFile
}

// globals are the flags in front of the command.
type globals struct {
	config, context, logLevel    string
	hosts                        []string
	debug, tls, tlsVerify        bool
	tlsCA, tlsCert, tlsKey       string
	tlsVerifySet, version, help  bool
	tlsCASet, certSet, tlsKeySet bool
}

// exitError ends the program with a code, after msg on standard error unless that is empty.
type exitError struct {
	code int
	msg  string
	err  error // what led to it, or nil
}

func (e *exitError) Error() string { return e.msg }
func (e *exitError) Unwrap() error { return e.err }

// Main runs the command line and returns the program's exit code.
func Main(ctx context.Context, env Env) int {
	a := &app{name: "gantry", stdin: env.Stdin, out: env.Stdout, err: env.Stderr, getenv: env.Getenv}
	if filepath.Base(env.Args[0]) == "docker" {
		a.name = "docker"
	}
	defer a.close()
	err := a.run(ctx, env.Args[1:])
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.msg != "" {
			fmt.Fprintln(a.err, exit.msg)
		}
		return exit.code
	}
	if errors.Is(err, context.Canceled) {
		return 130
	}
	fmt.Fprintln(a.err, err)
	return 1
}

func (a *app) close() {
	if a.api != nil {
		_ = a.api.Close()
	}
}

func (a *app) run(ctx context.Context, args []string) error {
	root := rootCommand()
	fs := a.globalFlags()
	fs.SetInterspersed(false)
	if err := fs.Parse(args); err != nil {
		return a.flagError(root, a.name, err)
	}
	a.readEnv(fs)
	switch {
	case a.global.version:
		fmt.Fprintf(a.out, "%s version %s, build %s\n", title(a.name), Version, Commit)
		return nil
	case a.global.help || fs.NArg() == 0:
		a.deprecatedShorthand(args)
		a.usage(a.out, root, a.name, fs)
		return nil
	}
	if !validLogLevel(a.global.logLevel) {
		return fmt.Errorf("Unable to parse logging level: %s", a.global.logLevel) //nolint:staticcheck // docker's words
	}
	return a.dispatch(ctx, root, a.name, fs.Args())
}

// dispatch finds the command that args name below parent and runs it.
func (a *app) dispatch(ctx context.Context, parent *command, path string, args []string) error {
	if parent.subs == nil {
		return a.execute(ctx, parent, path, args)
	}
	if parent.name != "" { // a group has no flags but --help
		fs := newFlagSet(path)
		help := helpFlag(fs)
		fs.SetInterspersed(false)
		if err := fs.Parse(args); err != nil {
			return a.flagError(parent, path, err)
		}
		if *help || fs.NArg() == 0 {
			a.deprecatedShorthand(args)
			a.usage(a.out, parent, path, nil)
			return nil
		}
		args = fs.Args()
	}
	if args[0] == "help" && parent.name == "" {
		return a.help(args[1:])
	}
	for _, c := range parent.subs() {
		if c.called(args[0]) {
			return a.dispatch(ctx, c, path+" "+c.name, args[1:])
		}
	}
	msg := fmt.Sprintf("%s: unknown command: %s %s\n", a.name, path, args[0])
	if parent.name != "" {
		msg += "\nUsage:  " + path + "\n"
	}
	return &exitError{code: 1, msg: msg + "\nRun '" + path + " --help' for more information"}
}

// help prints the help of the command that args name.
func (a *app) help(args []string) error {
	c, path := rootCommand(), a.name
next:
	for _, arg := range args {
		if c.subs != nil {
			for _, sub := range c.subs() {
				if sub.called(arg) {
					c, path = sub, path+" "+sub.name
					continue next
				}
			}
		}
		return &exitError{code: 1, msg: fmt.Sprintf("unknown help topic: %s", strings.Join(args, " "))}
	}
	var fs *pflag.FlagSet
	switch {
	case c.name == "":
		fs = a.globalFlags()
	case c.setup != nil:
		fs = newFlagSet(path)
		c.setup(a, fs)
		helpFlag(fs)
	}
	a.usage(a.out, c, path, fs)
	return nil
}

// execute parses a command's flags and runs it.
func (a *app) execute(ctx context.Context, c *command, path string, args []string) error {
	if c.absent != "" {
		return &exitError{code: 1, msg: fmt.Sprintf("%s: '%s' is not available yet: %s", a.name, path, c.absent)}
	}
	fs := newFlagSet(path)
	run := c.setup(a, fs)
	help := helpFlag(fs)
	fs.SetInterspersed(!c.firstArgEndsFlags)
	if err := fs.Parse(args); err != nil {
		return a.flagError(c, path, err)
	}
	if *help {
		a.deprecatedShorthand(args)
		a.usage(a.out, c, path, fs)
		return nil
	}
	if err := a.checkArgs(c, path, fs.NArg()); err != nil {
		return err
	}
	return run(ctx, fs.Args())
}

// checkArgs checks the number of arguments.
func (a *app) checkArgs(c *command, path string, n int) error {
	if n >= c.min && (c.max < 0 || n <= c.max) {
		return nil
	}
	see := "Run"
	var want string
	switch {
	case c.max == 0:
		want = "accepts no arguments"
	case c.min == c.max:
		want = fmt.Sprintf("requires %d %s", c.min, plural("argument", c.min))
	case c.max < 0:
		see, want = "See", fmt.Sprintf("requires at least %d %s", c.min, plural("argument", c.min))
	case c.min == 0:
		want = fmt.Sprintf("requires at most %d %s", c.max, plural("argument", c.max))
	default:
		want = fmt.Sprintf("requires at least %d and at most %d %s", c.min, c.max, plural("argument", c.max))
	}
	return &exitError{code: 1, msg: fmt.Sprintf("%s: '%s' %s\n\nUsage:  %s\n\n%s '%s --help' for more information", a.name, path, want, c.usageLine(path), see, path)}
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// flagError is the error of a flag that could not be parsed.
func (a *app) flagError(c *command, path string, err error) error {
	usage := c.usageLine(path)
	if c.name == "" {
		usage += " [ARG...]"
	}
	return &exitError{code: 125, msg: fmt.Sprintf("%v\n\nUsage:  %s\n\nRun '%s --help' for more information", err, usage, path)}
}

// deprecatedShorthand warns of -h for --help.
func (a *app) deprecatedShorthand(args []string) {
	for _, arg := range args {
		if arg == "-h" {
			fmt.Fprintln(a.err, "Flag shorthand -h has been deprecated, use --help")
			return
		}
	}
}

func newFlagSet(path string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(path, pflag.ContinueOnError)
	fs.Usage = func() {}
	fs.SetOutput(io.Discard)
	return fs
}

// helpFlag adds --help, and -h where that is free.
func helpFlag(fs *pflag.FlagSet) *bool {
	short := "h"
	if fs.ShorthandLookup("h") != nil {
		short = ""
	}
	v := fs.BoolP("help", short, false, "Print usage")
	if fs.Name() != "run" && short != "" {
		_ = fs.MarkHidden("help")
	}
	return v
}

func (a *app) globalFlags() *pflag.FlagSet {
	g := &a.global
	fs := newFlagSet(a.name)
	dir := a.defaultConfigDir()
	fs.StringVar(&g.config, "config", dir, "Location of client config files")
	fs.StringVarP(&g.context, "context", "c", "", "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with \""+a.name+" context use\")")
	fs.BoolVarP(&g.debug, "debug", "D", false, "Enable debug mode")
	fs.VarP(&listValue{values: &g.hosts}, "host", "H", "Daemon socket to connect to")
	fs.StringVarP(&g.logLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVar(&g.tls, "tls", false, "Use TLS; implied by --tlsverify")
	fs.StringVar(&g.tlsCA, "tlscacert", filepath.Join(dir, "ca.pem"), "Trust certs signed only by this CA")
	fs.StringVar(&g.tlsCert, "tlscert", filepath.Join(dir, "cert.pem"), "Path to TLS certificate file")
	fs.StringVar(&g.tlsKey, "tlskey", filepath.Join(dir, "key.pem"), "Path to TLS key file")
	fs.BoolVar(&g.tlsVerify, "tlsverify", false, "Use TLS and verify the remote")
	fs.BoolVarP(&g.version, "version", "v", false, "Print version information and quit")
	fs.BoolVarP(&g.help, "help", "h", false, "Print usage")
	_ = fs.MarkHidden("help")
	return fs
}

func validLogLevel(l string) bool {
	switch strings.ToLower(l) {
	case "debug", "info", "warn", "warning", "error", "fatal", "panic", "trace":
		return true
	}
	return false
}

// width is the number of columns help and progress may use.
func (a *app) width() int {
	if f, ok := a.out.(*os.File); ok {
		if ws, err := term.GetWinsize(f.Fd()); err == nil && ws.Width > 0 {
			return int(ws.Width)
		}
	}
	return 80
}

// terminalOut reports whether standard output is a terminal.
func (a *app) terminalOut() bool {
	f, ok := a.out.(*os.File)
	return ok && term.IsTerminal(f.Fd())
}

// terminalIn reports whether standard input is one.
func (a *app) terminalIn() bool { return a.stdin != nil && term.IsTerminal(a.stdin.Fd()) }

// each runs f for every argument, prints its errors as they come, and ends the program with code 1 if there was any.
func (a *app) each(args []string, f func(arg string) error) error {
	var failed error
	for _, arg := range args {
		if err := f(arg); err != nil {
			if errors.Is(err, context.Canceled) {
				return err
			}
			fmt.Fprintln(a.err, err)
			var tolerated *toleratedError
			if errors.As(err, &tolerated) {
				continue
			}
			failed = &exitError{code: 1, err: err}
			var ce *client.ConnectionError
			if errors.As(err, &ce) {
				return failed
			}
		}
	}
	return failed
}

// toleratedError is an error of one argument that is printed but does not make the program fail.
type toleratedError struct{ err error }

func (e *toleratedError) Error() string { return e.err.Error() }
func (e *toleratedError) Unwrap() error { return e.err }

// parallel is eachPrint with up to 50 calls at a time; what they answer is printed in the order of args.
func (a *app) parallel(args []string, f func(arg string) error) error {
	results := make([]chan error, len(args))
	room := make(chan struct{}, 50)
	for i, arg := range args {
		results[i] = make(chan error, 1)
		go func() {
			room <- struct{}{}
			defer func() { <-room }()
			results[i] <- f(arg)
		}()
	}
	i := -1
	return a.eachPrint(args, func(string) error {
		i++
		return <-results[i]
	})
}

// eachPrint is each for commands that print every argument they succeeded with.
func (a *app) eachPrint(args []string, f func(arg string) error) error {
	return a.each(args, func(arg string) error {
		if err := f(arg); err != nil {
			return err
		}
		fmt.Fprintln(a.out, arg)
		return nil
	})
}
