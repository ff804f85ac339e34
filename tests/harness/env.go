package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/moby/moby/client"
)

// CommandTimeout ends every command of the command line.
const CommandTimeout = 60 * time.Second

// Env is what one test has: the daemon, the command line, and a clean-up that leaves the daemon empty and asks fsck.
type Env struct {
	*testing.T
	D      *Daemon
	Config string // DOCKER_CONFIG
}

// New gives a test its environment. When the test ends, all containers, networks, volumes and images (but Image's) are removed and fsck must
// find nothing.
func New(t *testing.T, d *Daemon) *Env {
	t.Helper()
	e := &Env{T: t, D: d, Config: t.TempDir()}
	t.Cleanup(func() {
		if err := e.clean(); err != nil {
			t.Errorf("clean up: %v", err)
		}
		if t.Failed() {
			t.Logf("daemon's log:\n%s", d.LogTail(15))
		}
	})
	return e
}

// clean removes everything but the test images and holds records against reality.
func (e *Env) clean() error {
	if e.D.Pid() == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := e.D.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	containers, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return err
	}
	for _, item := range containers.Items {
		if _, err := c.ContainerRemove(ctx, item.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !notFound(err) {
			return err
		}
	}
	networks, err := c.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return err
	}
	for _, n := range networks.Items {
		if n.Name == "bridge" || n.Name == "host" || n.Name == "none" {
			continue
		}
		if _, err := c.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil && !notFound(err) {
			return err
		}
	}
	volumes, err := c.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return err
	}
	for _, v := range volumes.Items {
		if _, err := c.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true}); err != nil && !notFound(err) {
			return err
		}
	}
	images, err := c.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return err
	}
	for _, image := range images.Items {
		if len(image.RepoTags) == 1 && image.RepoTags[0] == Image {
			continue
		}
		names := image.RepoTags
		if len(names) == 0 || names[0] == "<none>:<none>" {
			names = []string{image.ID}
		}
		for _, name := range names {
			if name == Image {
				continue
			}
			if _, err := c.ImageRemove(ctx, name, client.ImageRemoveOptions{Force: true, PruneChildren: true}); err != nil && !notFound(err) {
				return err
			}
		}
	}
	var found []string
	if err := Within(5*time.Second, func() error {
		if found, err = e.D.Fsck(); err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("fsck: %s", strings.Join(found, "; "))
		}
		return nil
	}); err != nil {
		return err
	}
	return nil
}

func notFound(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "no such") || strings.Contains(text, "not found") || strings.Contains(text, "already in progress")
}

// Within calls f until it returns nil or the time is over, and returns its last error.
func Within(d time.Duration, f func() error) error {
	deadline := time.Now().Add(d)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(wait)
	}
}

// Eventually fails the test when f does not return nil within d.
func (e *Env) Eventually(d time.Duration, f func() error) {
	e.Helper()
	if err := Within(d, f); err != nil {
		e.Fatalf("after %v: %v", d, err)
	}
}

// Result is what a command left.
type Result struct {
	Args           []string
	Stdout, Stderr string
	Code           int
	Took           time.Duration
}

func (r Result) String() string {
	return fmt.Sprintf("docker %s\nexit code %d after %v\nstdout: %s\nstderr: %s", strings.Join(r.Args, " "), r.Code, r.Took.Round(time.Millisecond), r.Stdout, r.Stderr)
}

// CLI returns the command line's program.
func CLI() string {
	switch program := os.Getenv("GANTRY_TEST_CLI"); program {
	case "":
		return "docker"
	case "gantry":
		return Bin("gantry")
	default:
		return program
	}
}

// OldCLI reports whether the command line is docker's of Debian 12 (20.10), which lacks some flags.
func OldCLI() bool {
	out, err := exec.Command(CLI(), "--version").Output()
	return err == nil && strings.HasPrefix(string(out), "Docker version 20.")
}

// Cmd prepares a command of the command line, in an empty directory, speaking to the daemon.
func (e *Env) Cmd(args ...string) *exec.Cmd {
	cmd := exec.Command(CLI(), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.Config, "DOCKER_CONFIG=" + e.Config, "DOCKER_HOST=" + e.D.Host(), "TERM=xterm", "DOCKER_CLI_HINTS=false", "DOCKER_BUILDKIT=0"}
	cmd.Dir = e.Config
	return cmd
}

// Do runs a command to its end.
func (e *Env) Do(args ...string) Result { e.Helper(); return e.DoInput("", args...) }

// DoInput runs a command with stdin.
func (e *Env) DoInput(stdin string, args ...string) Result {
	e.Helper()
	return e.finish(e.Cmd(args...), stdin, args)
}

func (e *Env) finish(cmd *exec.Cmd, stdin string, args []string) Result {
	e.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdin == nil {
		cmd.Stdin = strings.NewReader(stdin)
	}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	start := time.Now()
	if err := cmd.Start(); err != nil {
		e.Fatal(err)
	}
	timer := time.AfterFunc(CommandTimeout, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	_ = cmd.Wait()
	r := Result{Args: args, Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode(), Took: time.Since(start)}
	if !timer.Stop() {
		e.Fatalf("no answer within %v: %v", CommandTimeout, r)
	}
	return r
}

// OK runs a command that must succeed and returns its stdout without white space around.
func (e *Env) OK(args ...string) string {
	e.Helper()
	r := e.Do(args...)
	if r.Code != 0 {
		e.Fatalf("failed: %v", r)
	}
	return strings.TrimSpace(r.Stdout)
}

// Is runs a command that must succeed and print want.
func (e *Env) Is(want string, args ...string) {
	e.Helper()
	if got := e.OK(args...); got != want {
		e.Fatalf("docker %s\n got %q\nwant %q", strings.Join(args, " "), got, want)
	}
}

// Match runs a command that must succeed and whose output must match the regular expression.
func (e *Env) Match(pattern string, args ...string) string {
	e.Helper()
	got := e.OK(args...)
	if !regexp.MustCompile("(?s)" + pattern).MatchString(got) {
		e.Fatalf("docker %s\n got %q\nwant %q", strings.Join(args, " "), got, pattern)
	}
	return got
}

// Fails runs a command that must fail with the exit code and with stderr matching the regular expression.
func (e *Env) Fails(code int, pattern string, args ...string) Result {
	e.Helper()
	r := e.Do(args...)
	if r.Code != code || !regexp.MustCompile("(?is)"+pattern).MatchString(r.Stderr) {
		e.Fatalf("want exit code %d and %q: %v", code, pattern, r)
	}
	return r
}

// Run runs `docker run --rm` with args and returns its output.
func (e *Env) Run(args ...string) string {
	e.Helper()
	return e.OK(append([]string{"run", "--rm"}, args...)...)
}

// Sleeper starts a container that stays until it gets a signal, with flags, and returns its ID.
func (e *Env) Sleeper(flags ...string) string {
	e.Helper()
	return e.OK(append(append([]string{"run", "-d"}, flags...), Image, "sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done")...)
}

// Ready waits until a Sleeper obeys SIGTERM.
func (e *Env) Ready(id string) {
	e.Helper()
	e.Eventually(10*time.Second, func() error {
		if r := e.Do("logs", id); !strings.Contains(r.Stdout, "ready") {
			return fmt.Errorf("not ready: %v", r)
		}
		return nil
	})
}

// Inspect returns one field of an object by a template.
func (e *Env) Inspect(object, template string) string {
	e.Helper()
	return e.OK("inspect", "-f", template, object)
}

// Await waits until a template of a container gives want.
func (e *Env) Await(object, template, want string) {
	e.Helper()
	e.Eventually(20*time.Second, func() error {
		r := e.Do("inspect", "-f", template, object)
		if got := strings.TrimSpace(r.Stdout); r.Code != 0 || got != want {
			return fmt.Errorf("inspect %s %s: got %q, want %q%s", object, template, got, want, r.Stderr)
		}
		return nil
	})
}

// File writes a file into the test's directory and returns its path.
func (e *Env) File(name, content string) string {
	e.Helper()
	path := filepath.Join(e.Config, name)
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		e.Fatal(err)
	}
	return path
}

// Session is a command that runs beside the test.
type Session struct {
	e    *Env
	cmd  *exec.Cmd
	In   io.WriteCloser
	done chan struct{}

	mu     sync.Mutex // guards out
	out    bytes.Buffer
	stderr bytes.Buffer
}

type locked struct {
	s *Session
	b *bytes.Buffer
}

func (w locked) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.b.Write(p)
}

// Go starts a command with pipes; the test ends it if it is still there.
func (e *Env) Go(args ...string) *Session {
	e.Helper()
	s := &Session{e: e, cmd: e.Cmd(args...), done: make(chan struct{})}
	var err error
	if s.In, err = s.cmd.StdinPipe(); err != nil {
		e.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = locked{s, &s.out}, locked{s, &s.stderr}
	s.cmd.WaitDelay = time.Second
	s.start(nil)
	return s
}

// Terminal starts a command on a pseudo terminal of 100 columns and 30 rows.
func (e *Env) Terminal(args ...string) *Session {
	e.Helper()
	s := &Session{e: e, cmd: e.Cmd(args...), done: make(chan struct{})}
	master, err := pty.StartWithSize(s.cmd, &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		e.Fatal(err)
	}
	s.In = master
	s.start(master)
	return s
}

func (s *Session) start(master *os.File) {
	s.e.Helper()
	if master == nil {
		if err := s.cmd.Start(); err != nil {
			s.e.Fatal(err)
		}
	}
	go func() {
		if master != nil {
			_, _ = io.Copy(locked{s, &s.out}, master)
		}
		_ = s.cmd.Wait()
		close(s.done)
	}()
	s.e.Cleanup(func() {
		select {
		case <-s.done:
		default:
			_ = s.cmd.Process.Kill()
			<-s.done
		}
		if master != nil {
			master.Close()
		}
	})
}

// Type writes to the command's stdin.
func (s *Session) Type(text string) {
	s.e.Helper()
	if _, err := io.WriteString(s.In, text); err != nil {
		s.e.Fatalf("%v: %v", s.cmd.Args, err)
	}
}

// Resize changes the size of the terminal.
func (s *Session) Resize(rows, cols uint16) {
	s.e.Helper()
	if err := pty.Setsize(s.In.(*os.File), &pty.Winsize{Rows: rows, Cols: cols}); err != nil {
		s.e.Fatal(err)
	}
}

// Output returns what the command has written to stdout, and to stderr where that is not the terminal.
func (s *Session) Output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String() + s.stderr.String()
}

// Expect waits until the output matches the pattern.
func (s *Session) Expect(pattern string) {
	s.e.Helper()
	re := regexp.MustCompile("(?s)" + pattern)
	if err := Within(20*time.Second, func() error {
		if !re.MatchString(s.Output()) {
			return fmt.Errorf("docker %v: want %q in %q", s.cmd.Args[1:], pattern, s.Output())
		}
		return nil
	}); err != nil {
		s.e.Fatal(err)
	}
}

// Signal sends a signal to the command.
func (s *Session) Signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }

// Wait waits for the command's end and returns its exit code.
func (s *Session) Wait() int {
	s.e.Helper()
	select {
	case <-s.done:
	case <-time.After(CommandTimeout):
		s.e.Fatalf("docker %v does not end; output %q", s.cmd.Args[1:], s.Output())
	}
	return s.cmd.ProcessState.ExitCode()
}

// Ended reports whether the command has ended.
func (s *Session) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}
