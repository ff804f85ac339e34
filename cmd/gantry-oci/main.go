// Command gantry-oci is a stand-alone OCI runtime with runc's command line: for dockerd, containerd, podman and CRI-O.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gantry/errdefs"
	"gantry/linux/fd"
)

// app is one call of the command.
type app struct {
	root    string // where the state of containers is
	log     string
	asJSON  bool
	systemd bool
	verb    string
	args    []string
}

// exitError ends the command with a container's exit code and no message.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	a := &app{}
	err := a.run(context.Background(), os.Args[1:])
	var code exitError
	switch {
	case err == nil:
		return
	case errors.As(err, &code):
		os.Exit(int(code))
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	}
	a.report(err)
	os.Exit(1)
}

const usage = `usage: gantry-oci [--root DIR] [--log FILE] [--log-format text|json] COMMAND ...

An OCI runtime with runc's command line.

commands:
  create   make a container from a bundle          start    run its program
  run      create, start, wait, delete             exec     run a further process in it
  state    print its state as JSON                 kill     send it a signal
  delete   remove it                               list     list containers
  ps       list its processes                      pause, resume
  update   change its limits                       events   print its statistics
  spec     write an example config.json            features print what this runtime can do
`

func (a *app) run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("gantry-oci", flag.ContinueOnError)
	f.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	f.StringVar(&a.root, "root", "/run/gantry-oci", "where the state of containers is")
	f.StringVar(&a.log, "log", "", "file that gets error messages")
	format := f.String("log-format", "text", "text or json")
	version := f.Bool("version", false, "print the version")
	f.BoolVar(version, "v", false, "print the version")
	f.BoolVar(&a.systemd, "systemd-cgroup", false, "have systemd make cgroups")
	f.Bool("debug", false, "no effect") // accepted for runc's callers
	for _, name := range []string{"rootless", "criu", "cgroup-manager"} {
		f.String(name, "", "no effect")
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	a.asJSON = *format == "json"
	if *version {
		fmt.Println("gantry-oci version 0.1.0\nspec: 1.3.0")
		return nil
	}
	if f.NArg() == 0 {
		fmt.Fprint(os.Stderr, usage)
		return exitError(1)
	}
	a.verb, a.args = f.Arg(0), f.Args()[1:]
	verbs := map[string]func(context.Context) error{
		"create": a.create, "start": a.start, "run": a.runContainer, "exec": a.exec, "state": a.state, "kill": a.kill, "delete": a.delete,
		"list": a.list, "ps": a.ps, "pause": a.pause, "resume": a.resume, "update": a.update, "events": a.events, "spec": a.spec, "features": a.features,
	}
	verb, ok := verbs[a.verb]
	if !ok {
		return errdefs.New(errdefs.InvalidParameter, "unknown command %q; see gantry-oci --help", a.verb)
	}
	switch a.verb {
	case "create", "run", "exec":
		if err := fromMemory(); err != nil {
			return err
		}
	}
	return verb(ctx)
}

// fromMemory executes this program again from a sealed copy in memory: until a container's process has executed its own program,
// /proc/PID/exe there is this one, and must not lead to the file on the host (CVE-2019-5736).
func fromMemory() error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	sealed := fd.IsSealed(self)
	self.Close()
	if sealed {
		return nil
	}
	f, err := fd.SealedCopy("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := syscall.Exec(fd.Path(f), os.Args, os.Environ()); err != nil {
		return fmt.Errorf("execute from memory: %w", err)
	}
	return nil
}

// report tells an error to the user and, in the form runc's callers read, to the log file.
func (a *app) report(err error) {
	message := strings.ReplaceAll(err.Error(), "\n", "; ")
	fmt.Fprintln(os.Stderr, "gantry-oci: "+message)
	a.note("error", message)
}

// note writes a line to the log file, if there is one.
func (a *app) note(level, message string) {
	if a.log == "" {
		return
	}
	f, err := os.OpenFile(a.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gantry-oci:", err)
		return
	}
	defer f.Close()
	now := time.Now().Format(time.RFC3339)
	if a.asJSON {
		_ = json.NewEncoder(f).Encode(map[string]string{"level": level, "msg": message, "time": now}) // nowhere to tell of a failure
		return
	}
	fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, message)
}

// dir returns the directory of a container's state.
func (a *app) dir(id string) (string, error) {
	if id == "" || id == "." || id == ".." || len(id) > 1024 || strings.ContainsAny(id, "/\x00") {
		return "", errdefs.New(errdefs.InvalidParameter, "container ID %q is not one", id)
	}
	return filepath.Join(a.root, id), nil
}
