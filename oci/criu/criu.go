// Package criu saves and restores processes with the program criu, through its service protocol: messages over a socket that it is
// started with (criu swrk).
package criu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"gantry/errdefs"
	"gantry/linux/fd"
)

// Request is what criu is asked for.
type Request int

// The requests, by their numbers in the protocol.
const (
	Dump         Request = 1
	Restore      Request = 2
	PreDump      Request = 4
	notify       Request = 6
	featureCheck Request = 9
	version      Request = 10
)

func (r Request) String() string {
	switch r {
	case Dump:
		return "DUMP"
	case Restore:
		return "RESTORE"
	case PreDump:
		return "PRE_DUMP"
	case notify:
		return "NOTIFY"
	case featureCheck:
		return "FEATURE_CHECK"
	case version:
		return "VERSION"
	}
	return fmt.Sprintf("type %d", int(r))
}

// InheritFD gives the restored processes a descriptor of criu's for one they had.
type InheritFD struct {
	Key string
	FD  int
}

// Mount is an external mount: one that criu neither saves nor makes.
type Mount struct{ Key, Value string }

// Root says where a hierarchy's cgroups are restored.
type Root struct{ Controller, Path string }

// Options are those of a dump or restore. The zero value of each leaves criu's default.
type Options struct {
	Images, Work, Parent string // directories; Parent is relative to Images
	LogFile              string // name below Work, or Images
	Root                 string // the root file system
	Pid                  int    // dump
	Config               string // file with further options, which override these
	FreezeCgroup         string
	PageServer           string
	PageServerPort       int
	LSMProfile           string
	LSMMountContext      string
	CgroupMode           string // soft, full, strict, ignore
	StatusFD             int    // -1: none; told by a zero byte that lazy pages are being served
	EmptyNS              uint32 // CLONE_NEW* flags

	LeaveRunning, TCPEstablished, TCPSkipInFlight, LinkRemap, ExtUnixSockets, ShellJob, LazyPages, FileLocks, AutoDedup bool

	Mounts   []Mount
	External []string
	Inherit  []InheritFD
	JoinNS   [][2]string // name, path
	Roots    []Root

	Stdio [3]*os.File // restore: what criu, and so the processes, have
	Extra []*os.File  // restore: descriptors from FirstExtra on
	// Started is called when criu runs, before it does anything.
	Started func(pid int, o *Options) error
	// Notified is called at the points that criu tells of: "post-dump", "setup-namespaces", "post-restore", "orphan-pts-master", ...
	Notified func(script string, pid int, file *os.File) error
}

// FirstExtra is the number in criu of the first of Options.Extra.
const FirstExtra = 4

// modes are criu's numbers of the ways to treat cgroups.
var modes = map[string]int64{"": 3, "soft": 3, "full": 4, "strict": 5, "ignore": 0}

// CheckMode refuses a way to treat cgroups that there is not.
func CheckMode(mode string) error {
	if _, ok := modes[mode]; !ok {
		return errdefs.New(errdefs.InvalidParameter, "invalid manage-cgroups-mode value: %s", mode)
	}
	return nil
}

// minVersion is the first criu that speaks all that is used here.
const minVersion = 30000

// Check reports whether there is a criu that can be spoken to, and, if asked, whether it and the kernel can track memory or restore
// pages lazily.
func Check(ctx context.Context, track, lazy bool) error {
	r, err := call(ctx, version, nil, nil)
	if err != nil {
		return fmt.Errorf("CRIU version check failed: %w", err)
	}
	if r.version < minVersion {
		return errdefs.New(errdefs.NotImplemented, "CRIU version %d must be %d or higher", r.version, minVersion)
	}
	if !track && !lazy {
		return nil
	}
	var want message
	want.flag(1, track)
	want.flag(2, lazy)
	var req message
	req.number(1, int64(featureCheck))
	req.bytes(5, want)
	if r, err = call(ctx, featureCheck, req, nil); err != nil {
		return fmt.Errorf("CRIU feature check failed: %w", err)
	}
	var missing []string
	if track && !r.tracked {
		missing = append(missing, "MemTrack")
	}
	if lazy && !r.lazy {
		missing = append(missing, "LazyPages")
	}
	if len(missing) > 0 {
		return errdefs.New(errdefs.NotImplemented, "criu is missing features: %v", missing)
	}
	return nil
}

// Run makes criu dump or restore. When that fails the error has the lines of criu's log that say why.
func Run(ctx context.Context, kind Request, o *Options) error {
	images, err := os.Open(o.Images)
	if err != nil {
		return err
	}
	defer images.Close()
	work := -1
	logDir := o.Images
	if o.Work != "" {
		f, err := os.Open(o.Work)
		if err != nil {
			return err
		}
		defer f.Close()
		work, logDir = int(f.Fd()), o.Work
	}
	if _, err := call(ctx, kind, nil, &running{o, int(images.Fd()), work}); err != nil {
		if lines := logErrors(filepath.Join(logDir, o.LogFile)); lines != "" {
			err = fmt.Errorf("%w: %s", err, lines)
		}
		return err
	}
	return nil
}

// running is a dump or restore with its directories open; criu finds those by their numbers in this process.
type running struct {
	*Options
	images, work int
}

func (r *running) request(kind Request) message {
	var o message
	o.number(1, int64(r.images))
	if kind != Restore {
		o.number(2, int64(r.Pid))
	}
	o.flag(3, r.LeaveRunning)
	o.flag(4, r.ExtUnixSockets)
	o.flag(5, r.TCPEstablished)
	o.flag(6, kind == Restore) // evasive devices
	o.flag(7, r.ShellJob)
	o.flag(8, r.FileLocks)
	o.number(9, 4)
	o.text(10, r.LogFile)
	if r.PageServer != "" {
		var ps message
		ps.text(1, r.PageServer)
		ps.number(2, int64(r.PageServerPort))
		o.bytes(11, ps)
	}
	o.flag(12, true) // notify
	o.text(13, r.Root)
	o.text(14, r.Parent)
	o.flag(15, r.Parent != "" || kind == PreDump)
	o.flag(16, r.AutoDedup)
	if r.work >= 0 {
		o.number(17, int64(r.work))
	}
	o.flag(18, r.LinkRemap)
	for _, m := range r.Mounts {
		o.pair(23, m.Key, m.Value)
	}
	o.flag(24, true) // manage cgroups
	for _, c := range r.Roots {
		o.pair(25, c.Controller, c.Path)
	}
	o.flag(26, kind == Restore) // as a child of this process
	for _, i := range r.Inherit {
		var fd message
		fd.text(1, i.Key)
		fd.number(2, int64(i.FD))
		o.bytes(27, fd)
	}
	o.number(34, modes[r.CgroupMode])
	for _, e := range r.External {
		o.text(37, e)
	}
	if r.EmptyNS != 0 {
		o.number(38, int64(r.EmptyNS))
	}
	for _, j := range r.JoinNS {
		o.pair(39, j[0], j[1])
	}
	o.text(44, r.FreezeCgroup)
	o.flag(46, r.TCPSkipInFlight)
	o.flag(48, r.LazyPages)
	if r.StatusFD >= 0 && r.LazyPages {
		o.number(49, int64(r.StatusFD))
	}
	o.flag(50, true) // terminals whose master is outside
	o.text(51, r.Config)
	o.text(53, r.LSMProfile)
	o.text(63, r.LSMMountContext)
	var req message
	req.number(1, int64(kind))
	req.bytes(2, o)
	return req
}

// call starts criu, makes one request and answers its notifications.
func call(ctx context.Context, kind Request, req message, r *running) (response, error) {
	path, err := exec.LookPath("criu")
	if err != nil {
		return response{}, errdefs.New(errdefs.NotImplemented, "checkpoint and restore need the program criu: %w", err)
	}
	ours, theirs, err := fd.PacketPair()
	if err != nil {
		return response{}, err
	}
	defer ours.Close()
	cmd := exec.CommandContext(ctx, path, "swrk", "3")
	cmd.ExtraFiles = []*os.File{theirs}
	if r != nil {
		// A nil *os.File in an interface would not be nil.
		if r.Stdio[0] != nil {
			cmd.Stdin = r.Stdio[0]
		}
		if r.Stdio[1] != nil {
			cmd.Stdout = r.Stdio[1]
		}
		if r.Stdio[2] != nil {
			cmd.Stderr = r.Stdio[2]
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, r.Extra...)
	}
	if err := cmd.Start(); err != nil {
		theirs.Close()
		return response{}, err
	}
	theirs.Close()
	ended := false
	defer func() {
		if !ended {
			ours.Close()
			_ = cmd.Process.Kill() // it has nothing more to say
			_ = cmd.Wait()
		}
	}()
	if r != nil {
		if r.Started != nil {
			if err := r.Started(cmd.Process.Pid, r.Options); err != nil {
				return response{}, err
			}
		}
		req = r.request(kind)
	}
	if req == nil {
		req.number(1, int64(kind))
	}
	answer, err := converse(ours, kind, req, r)
	if err != nil {
		return answer, err
	}
	ours.Close()
	ended = true
	// A pre-dump's criu waits for more, and ends badly when none comes.
	if err := cmd.Wait(); err != nil && kind != PreDump {
		return answer, fmt.Errorf("criu failed: %w", err)
	}
	return answer, nil
}

func converse(conn *os.File, kind Request, req message, r *running) (response, error) {
	if _, err := conn.Write(req); err != nil {
		return response{}, fmt.Errorf("speak to criu: %w", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, file, err := fd.ReceiveFile(conn, buf)
		if err != nil {
			return response{}, fmt.Errorf("speak to criu: %w", err)
		}
		answer, err := func() (response, error) {
			if file != nil {
				defer file.Close()
			}
			if n == 0 {
				return response{}, errors.New("criu ended without an answer")
			}
			answer, err := parseResponse(buf[:n])
			if err != nil {
				return answer, err
			}
			if !answer.success {
				return answer, fail(answer)
			}
			if answer.kind == notify && r != nil && r.Notified != nil {
				err = r.Notified(answer.script, answer.pid, file)
			}
			return answer, err
		}()
		if err != nil {
			return answer, err
		}
		if answer.kind != notify {
			if answer.kind != kind {
				return answer, fmt.Errorf("criu answers %s to %s", answer.kind, kind)
			}
			return answer, nil
		}
		var reply message
		reply.number(1, int64(notify))
		reply.flag(3, true)
		if _, err := conn.Write(reply); err != nil {
			return answer, fmt.Errorf("speak to criu: %w", err)
		}
	}
}

func fail(r response) error {
	text := r.message
	if text == "" && r.errno != 0 {
		text = syscall.Errno(r.errno).Error()
	}
	if text != "" {
		text = ": " + text
	}
	return fmt.Errorf("criu failed: type %s errno %d%s", r.kind, r.errno, text)
}

// maxLogErrors is how many lines of criu's log an error shows.
const maxLogErrors = 8

// logErrors returns the lines of criu's log that speak of errors.
func logErrors(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.Contains(s.Text(), "Error") {
			lines = append(lines, strings.TrimSpace(s.Text()))
		}
	}
	if len(lines) > maxLogErrors {
		lines = lines[len(lines)-maxLogErrors:]
	}
	return strings.Join(lines, "; ")
}
