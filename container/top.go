package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gantry/errdefs"

	"github.com/moby/moby/api/types/container"
)

// Top lists the processes of a running container. Without arguments, or with -ef, the columns are read from /proc; any
// other arguments are those of the host's ps(1).
func (s *Service) Top(ctx context.Context, ref string, args []string) (*container.TopResponse, error) {
	c, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	rec := c.Record()
	if rec.State == Restarting {
		return nil, errdefs.New(errdefs.Conflict, "container %s is restarting, wait until the container is running", rec.ID)
	}
	task, err := c.runningTask()
	if err != nil {
		return nil, err
	}
	pids, err := task.Pids(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	if len(args) > 0 && !slices.Equal(args, []string{"-ef"}) {
		return hostPS(ctx, args, pids)
	}
	out := &container.TopResponse{Titles: []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}, Processes: [][]string{}}
	for _, pid := range pids {
		line, err := processLine(pid)
		if err != nil {
			continue // it ended meanwhile
		}
		out.Processes = append(out.Processes, line)
	}
	return out, nil
}

// hostPS runs the host's ps with the user's arguments and keeps the container's lines.
func hostPS(ctx context.Context, args []string, pids []int) (*container.TopResponse, error) {
	for _, a := range args {
		if strings.Contains(a, "=") { // a title of one's own hides the PID column: docker's own guard
			for part := range strings.SplitSeq(a, ",") {
				if name, _, ok := strings.Cut(part, "="); ok && strings.EqualFold(strings.TrimSpace(name), "pid") {
					return nil, errdefs.New(errdefs.InvalidParameter, "specifying \"%s\" is not allowed", a)
				}
			}
		}
	}
	body, err := exec.CommandContext(ctx, "ps", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			return nil, errdefs.New(errdefs.InvalidParameter, "error running ps: %s", strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, errdefs.New(errdefs.Internal, "error running ps: %w", err)
	}
	lines := strings.Split(strings.TrimRight(string(body), "\n"), "\n")
	out := &container.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	column := slices.Index(out.Titles, "PID")
	if column < 0 {
		return nil, errdefs.New(errdefs.InvalidParameter, "Couldn't find PID field in ps output")
	}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if last := len(out.Titles) - 1; len(fields) > len(out.Titles) {
			fields = append(fields[:last:last], strings.Join(fields[last:], " "))
		}
		out.Processes = append(out.Processes, fields)
	}
	return out, nil
}

// processLine returns the columns of `ps -ef` (proc_pid_stat(5)).
func processLine(pid int) ([]string, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	body, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	end := strings.LastIndexByte(string(body), ')')
	start := strings.IndexByte(string(body), '(')
	if start < 0 || end < start {
		return nil, fmt.Errorf("read %s/stat: unknown format", dir)
	}
	f := strings.Fields(string(body[end+1:]))
	if len(f) < 20 {
		return nil, fmt.Errorf("read %s/stat: unknown format", dir)
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i], 10, 64) // the kernel writes numbers
		return n
	}
	const ticks = 100 // USER_HZ
	cpu := (number(11) + number(12)) / ticks
	began, err := bootTime()
	if err != nil {
		return nil, err
	}
	began = began.Add(time.Duration(number(19)) * time.Second / ticks)
	share := int64(0)
	if age := int64(time.Since(began).Seconds()); age > 0 {
		share = min(cpu*100/age, 99)
	}
	stime := began.Format("15:04")
	if time.Since(began) > 24*time.Hour {
		stime = began.Format("Jan02")
	}
	cmd := "[" + string(body[start+1:end]) + "]"
	if line, err := os.ReadFile(dir + "/cmdline"); err == nil && len(line) > 0 {
		cmd = strings.TrimSpace(strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " "))
	}
	owner := "?"
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		owner = strconv.Itoa(int(st.Uid))
		if u, err := user.LookupId(owner); err == nil {
			owner = u.Username
		}
	}
	return []string{owner, strconv.Itoa(pid), f[1], strconv.FormatInt(share, 10), stime, terminal(number(4)),
		fmt.Sprintf("%02d:%02d:%02d", cpu/3600, cpu/60%60, cpu%60), cmd}, nil
}

// terminal names a controlling terminal by its device number.
func terminal(dev int64) string {
	maj, min := major(uint64(dev)), minor(uint64(dev))
	switch {
	case dev == 0:
		return "?"
	case maj >= 136 && maj <= 143:
		return "pts/" + strconv.FormatInt((maj-136)<<20|min, 10)
	case maj == 4 && min < 64:
		return "tty" + strconv.FormatInt(min, 10)
	default:
		return "?"
	}
}

// bootTime returns when the host booted.
func bootTime() (time.Time, error) {
	body, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, errors.New("read /proc/stat: no btime")
}
