// Package command is the command line of the stand-alone runtime, in runc's words: verbs, flags, output, exit codes, error texts. A
// file for each verb.
package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/oci/store"
)

// Info is what a build knows of itself.
type Info struct{ Version, Commit string }

// app is one call of the command.
type app struct {
	info     Info
	name     string // what it was called as
	root     string
	rootSet  bool
	rootless bool // cgroups that may not be made are no error
	systemd  bool
	log      logger
	store    store.Store
	verb     *verb
	flagSet
	args []string // what is left after the flags
}

// verb is one word of the command line.
type verb struct {
	name, args, usage string
	least, most       int // how many arguments; most -1: any number
	declare           func(*app) func(context.Context) error
}

// exitError ends the command with an exit code; a message, if there is one, has been written.
type exitError int

func (e exitError) Error() string { return "exit code " + strconv.Itoa(int(e)) }

// Main runs the command line args, args[0] being the program's name, and returns the exit code.
func Main(ctx context.Context, args []string, info Info) int {
	a := &app{info: info, name: "gantry-oci", log: logger{start: time.Now()}}
	if len(args) > 0 {
		a.name = args[0]
		args = args[1:]
	}
	err := a.run(ctx, args)
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	a.log.fail(oneLine(err))
	return 1
}

// oneLine is the text of an error as a log line takes it.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (a *app) global() (f flagSet, format, rootless *string, version *bool) {
	format, rootless, version = new(string), new(string), new(bool)
	*format, *rootless = "text", "auto"
	f.on(&a.log.debug, "debug", "enable debug logging")
	f.text(&a.log.path, "log", "set the log file to write logs to (default is '/dev/stderr')")
	f.text(format, "log-format", "set the log format ('text' (default), or 'json')")
	f.text(&a.root, "root", "root directory for storage of container state (this should be located in tmpfs)")
	f.text(new(string), "criu", "ignored: criu is found in $PATH").hidden = true
	f.on(&a.systemd, "systemd-cgroup", "have systemd make cgroups: cgroupsPath is \"slice:prefix:name\"")
	f.text(rootless, "rootless", "ignore cgroup permission errors ('true', 'false', or 'auto')")
	f.on(version, "version,v", "print the version")
	f.stopAt = 1
	return f, format, rootless, version
}

func (a *app) run(ctx context.Context, words []string) error {
	f, format, rootless, version := a.global()
	// "--" after the verb belongs to the verb.
	n := 0
	for n < len(words) && strings.HasPrefix(words[n], "-") && words[n] != "--" && words[n] != "-" {
		name, _, hasValue := strings.Cut(strings.TrimLeft(words[n], "-"), "=")
		if o := f.find(name); o != nil && o.kind != "" && !hasValue {
			n++
		}
		n++
	}
	n = min(n, len(words))
	_, err := f.parse(words[:n])
	words = words[n:]
	if errors.As(err, new(helpWanted)) || err == nil && !*version && (len(words) == 0 || words[0] == "help" || words[0] == "h") {
		if len(words) > 1 {
			if v := find(words[1]); v != nil {
				a.verb = v
				v.declare(a)
				a.help(os.Stdout)
				return nil
			}
			return fmt.Errorf("no help topic for %q", words[1])
		}
		a.overview(os.Stdout, f)
		return nil
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "Incorrect Usage. %v\n\n", err)
		a.overview(os.Stderr, f)
		return err
	}
	if *version {
		a.printVersion()
		return nil
	}
	switch *format {
	case "", "text":
	case "json":
		a.log.asJSON = true
	default:
		return errors.New("invalid log-format: " + *format)
	}
	if err := a.log.open(); err != nil {
		return err
	}
	if err := a.whereRoot(f.find("root").given); err != nil {
		return err
	}
	if a.rootless, err = isRootless(*rootless); err != nil {
		return err
	}
	if a.verb = find(words[0]); a.verb == nil {
		a.log.fail(fmt.Sprintf("No help topic for '%s'", words[0]))
		return exitError(3)
	}
	return a.call(ctx, words[1:])
}

// call runs the verb.
func (a *app) call(ctx context.Context, words []string) error {
	do := a.verb.declare(a)
	var err error
	a.args, err = a.parse(words)
	var wrong usageError
	switch {
	case errors.As(err, new(helpWanted)):
		a.help(os.Stdout)
		return nil
	case errors.As(err, &wrong):
		fmt.Fprintf(os.Stderr, "Incorrect Usage: %v\n\n", err)
		a.help(os.Stderr)
		return err
	}
	if n := len(a.args); n < a.verb.least || a.verb.most >= 0 && n > a.verb.most {
		what, count := "exactly", a.verb.least
		switch {
		case a.verb.least == a.verb.most:
		case n < a.verb.least:
			what = "a minimum of"
		default:
			what, count = "a maximum of", a.verb.most
		}
		fmt.Fprint(os.Stderr, "Incorrect Usage.\n\n")
		a.help(os.Stderr)
		return fmt.Errorf("%s: %q requires %s %d argument(s)", a.name, a.verb.name, what, count)
	}
	switch a.verb.name {
	case "create", "run", "exec", "restore":
		if err := protect(); err != nil {
			return err
		}
	}
	return do(ctx)
}

func (a *app) printVersion() {
	fmt.Println("gantry-oci version", a.info.Version)
	if a.info.Commit != "" {
		fmt.Println("commit:", a.info.Commit)
	}
	fmt.Println("spec:", specs.Version)
	fmt.Println("go:", runtime.Version())
}

// whereRoot settles where state is kept.
func (a *app) whereRoot(given bool) error {
	a.rootSet = given
	if !given {
		a.root = "/run/gantry-oci"
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" || !ordinaryUser() {
			a.store = store.New(a.root)
			return nil
		}
		a.root = filepath.Join(dir, "gantry-oci")
		if err := os.MkdirAll(a.root, 0o700); err != nil {
			return fmt.Errorf("the path in $XDG_RUNTIME_DIR must be writable by the user: %w", err)
		}
		// The sticky bit keeps what sweeps this directory away from it.
		if err := os.Chmod(a.root, 0o700|os.ModeSticky); err != nil {
			return fmt.Errorf("check the permissions of the path in $XDG_RUNTIME_DIR: %w", err)
		}
		a.store = store.New(a.root)
		return nil
	}
	root, err := filepath.Abs(a.root)
	if err != nil {
		return err
	}
	if root == "/" {
		return errors.New("Option --root argument should not be set to /") //nolint:staticcheck // runc's words
	}
	a.root, a.store = root, store.New(root)
	return nil
}

// ordinaryUser reports whether this is not the machine's root: another user, or root of a user namespace.
func ordinaryUser() bool {
	if os.Geteuid() != 0 {
		return true
	}
	user, ok := os.LookupEnv("USER")
	return inUserNamespace() && (!ok || user != "root")
}

// inUserNamespace reports whether not every user of the machine exists here.
func inUserNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(data)), " ") != "0 0 4294967295"
}

func isRootless(value string) (bool, error) {
	if value == "" || strings.EqualFold(value, "auto") {
		return os.Geteuid() != 0 || inUserNamespace(), nil
	}
	return strconv.ParseBool(value)
}
