package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
)

// Daemon is one daemon under test with its own roots, socket and bridge.
type Daemon struct {
	Name   string // distinguishes the daemons of one test binary
	Dir    string // holds data/, exec/, log, daemon.json and the socket
	Bridge string
	Flags  []string              // further flags
	Large  bool                  // one subnet for all containers rather than a small one for each network
	Wrap   func(*exec.Cmd) error // changes how the daemon is started; nil: nothing is to be changed

	program string
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has been waited for
}

// NewDaemon describes the daemon under test below dir; Start starts it. flags are added to those that keep it apart from others.
func NewDaemon(dir, name string, flags ...string) (*Daemon, error) {
	return newDaemon(dir, name, Oracle(), flags)
}

// NewDockerd describes a dockerd, whatever is under test.
func NewDockerd(dir, name string, flags ...string) (*Daemon, error) {
	return newDaemon(dir, name, true, flags)
}

func newDaemon(dir, name string, dockerd bool, flags []string) (*Daemon, error) {
	d := &Daemon{Name: name, Dir: filepath.Join(dir, name), Bridge: "gt-" + name, Flags: flags, program: "dockerd"}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := d.Configure("{}"); err != nil {
		return nil, err
	}
	if !dockerd {
		d.program = Bin("gantryd")
		return d, nil
	}
	// dockerd wants a bridge of that name to be there.
	for _, line := range []string{"link add " + d.Bridge + " type bridge", "addr add " + d.subnet() + ".0.1/" + d.poolSize() + " dev " + d.Bridge, "link set " + d.Bridge + " up"} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return d, nil
}

// subnet returns the first two bytes of the daemon's addresses.
func (d *Daemon) subnet() string {
	n := 0
	for _, c := range d.Name {
		n = (n*31 + int(c)) % 100
	}
	return fmt.Sprintf("10.%d", 100+n)
}

func (d *Daemon) poolSize() string {
	if d.Large {
		return "16"
	}
	return "24"
}

// Configure writes daemon.json; it is read at the next start.
func (d *Daemon) Configure(text string) error {
	return os.WriteFile(filepath.Join(d.Dir, "daemon.json"), []byte(text), 0o644)
}

// Socket returns the path of the API's socket.
func (d *Daemon) Socket() string { return filepath.Join(d.Dir, "api.sock") }

// Host returns the address of the API in the form of DOCKER_HOST.
func (d *Daemon) Host() string { return "unix://" + d.Socket() }

// DataRoot and ExecRoot are the daemon's directories.
func (d *Daemon) DataRoot() string { return filepath.Join(d.Dir, "data") }

// ExecRoot is where the daemon keeps sockets and process state.
func (d *Daemon) ExecRoot() string { return filepath.Join(d.Dir, "exec") }

// CgroupParent returns the cgroup that holds the containers' ones.
func (d *Daemon) CgroupParent() string {
	return "/" + filepath.Base(filepath.Dir(d.Dir)) + "-" + d.Name
}

// Args returns the daemon's command line.
func (d *Daemon) Args() []string {
	return append([]string{
		"--data-root", d.DataRoot(), "--exec-root", d.ExecRoot(), "--pidfile", filepath.Join(d.Dir, "pid"),
		"--config-file", filepath.Join(d.Dir, "daemon.json"), "-H", d.Host(),
		"--bridge", d.Bridge, "--default-address-pool", "base=" + d.subnet() + ".0.0/16,size=" + d.poolSize(), "--live-restore",
		"--cgroup-parent", d.CgroupParent(),
	}, d.Flags...)
}

// Start starts the daemon and waits until it answers.
func (d *Daemon) Start() error {
	log, err := os.OpenFile(d.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(d.program, d.Args()...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if d.Wrap != nil {
		if err := d.Wrap(d.cmd); err != nil {
			return fmt.Errorf("start %s: %w", d.program, err)
		}
	}
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.program, err)
	}
	d.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(d.cmd, d.done)
	deadline := time.After(30 * time.Second)
	for {
		if status, _, err := d.Get("/_ping"); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-d.done:
			return fmt.Errorf("%s ended at once: %s\n%s", d.program, d.cmd.ProcessState, d.LogTail(30))
		case <-deadline:
			_ = d.cmd.Process.Kill()
			return fmt.Errorf("%s does not answer on %s\n%s", d.program, d.Socket(), d.LogTail(30))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop ends the daemon in order: SIGTERM, and SIGKILL after 30 s, which is an error.
func (d *Daemon) Stop() error {
	if d.cmd == nil {
		return nil
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
		d.cmd = nil
		return nil
	case <-time.After(30 * time.Second):
		d.Kill()
		return errors.New("the daemon did not end within 30 s of SIGTERM")
	}
}

// Kill ends the daemon with SIGKILL.
func (d *Daemon) Kill() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	<-d.done
	d.cmd = nil
}

// Pid returns the daemon's process, or 0.
func (d *Daemon) Pid() int {
	if d.cmd == nil {
		return 0
	}
	return d.cmd.Process.Pid
}

func (d *Daemon) logPath() string { return filepath.Join(d.Dir, "log") }

// LogTail returns the last n lines of the daemon's log.
func (d *Daemon) LogTail(n int) string {
	data, err := os.ReadFile(d.logPath())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// HTTP returns a client whose every connection goes to the API's socket.
func (d *Daemon) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", d.Socket())
		},
	}}
}

// Get asks the API for a path.
func (d *Daemon) Get(path string) (status int, body []byte, err error) {
	return d.Do(http.MethodGet, path, "")
}

// Do sends a request with a JSON body ("" for none) to the API.
func (d *Daemon) Do(method, path, body string) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://d"+path, r)
	if err != nil {
		return 0, nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.HTTP().Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// Client returns moby's Go client for the daemon.
func (d *Daemon) Client() (*client.Client, error) {
	return client.New(client.WithHost(d.Host()))
}

// Fsck returns what the daemon's check of records against the kernel finds wrong; nothing for dockerd.
func (d *Daemon) Fsck() ([]string, error) {
	if Oracle() || d.cmd == nil {
		return nil, nil
	}
	status, body, err := d.Get("/gantry/fsck")
	if err != nil {
		return nil, err
	}
	var found []struct{ Area, Object, Problem string }
	if err := json.Unmarshal(body, &found); err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("fsck: status %d: %s", status, body)
	}
	var lines []string
	for _, f := range found {
		lines = append(lines, f.Area+" "+f.Object+": "+f.Problem)
	}
	return lines, nil
}

// Children returns the processes below pid whose command's name is name.
func Children(pid int, name string) []int {
	var found []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		comm, parent := stat(p)
		if parent == pid && (name == "" || comm == name) {
			found = append(found, p)
		}
	}
	return found
}

// Parent returns the parent of a process and that parent's name.
func Parent(pid int) (int, string) {
	_, parent := stat(pid)
	comm, _ := stat(parent)
	return parent, comm
}

func stat(pid int) (comm string, parent int) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return "", 0
	}
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) > 1 {
		parent, _ = strconv.Atoi(fields[1])
	}
	return string(data[open+1 : end]), parent
}
