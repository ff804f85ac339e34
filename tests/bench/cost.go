package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cost is what one piece of work took.
type cost struct {
	cpu, wall time.Duration // processor time is user and system, of daemon, its children and the command
	peak      int           // kB that daemon, children and command had resident at most, all together
}

// tick is the unit of times in /proc.
const tick = 10 * time.Millisecond

// process is what /proc says of one.
type process struct {
	cpu time.Duration // with that of the children it has waited for
	rss int           // kB
}

// processes lists those whose programs have one of these names.
func processes(names []string) map[int]process {
	found := map[int]process{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		link, err := os.Readlink(dir + "/exe")
		if err != nil || !slices.Contains(names, strings.TrimPrefix(filepath.Base(strings.TrimSuffix(link, " (deleted)")), "memfd:")) {
			continue
		}
		data, err := os.ReadFile(dir + "/stat")
		pid, _ := strconv.Atoi(filepath.Base(dir))
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if err != nil || len(fields) < 22 {
			continue
		}
		var p process
		for _, f := range fields[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.Atoi(f)
			p.cpu += time.Duration(n) * tick
		}
		pages, _ := strconv.Atoi(fields[21])
		p.rss = pages * os.Getpagesize() / 1000
		found[pid] = p
	}
	return found
}

// spend runs a command and says what it cost together with the programs of those names, which may run already.
func spend(cmd *exec.Cmd, programs ...string) (cost, error) {
	before := processes(programs)
	var c cost
	over, sampled := make(chan struct{}), make(chan struct{})
	begin := time.Now()
	go func() {
		defer close(sampled)
		for {
			sum := 0
			for _, p := range processes(append(programs, filepath.Base(cmd.Path))) {
				sum += p.rss
			}
			c.peak = max(c.peak, sum)
			select {
			case <-over:
				return
			case <-time.After(30 * time.Millisecond):
			}
		}
	}()
	err := finish(cmd)
	c.wall = time.Since(begin)
	close(over)
	<-sampled
	if cmd.ProcessState != nil {
		c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	for pid, p := range processes(programs) {
		c.cpu += p.cpu - before[pid].cpu
	}
	return c, err
}

// median takes each number's own.
func median(costs []cost) cost {
	pick := func(of func(cost) int64) int64 {
		var list []int64
		for _, c := range costs {
			list = append(list, of(c))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	return cost{
		cpu: time.Duration(pick(func(c cost) int64 { return int64(c.cpu) })), wall: time.Duration(pick(func(c cost) int64 { return int64(c.wall) })),
		peak: int(pick(func(c cost) int64 { return int64(c.peak) })),
	}
}

// diskUsage returns the kB that files below a folder take, each counted once.
func diskUsage(dir string) int {
	seen := map[uint64]bool{}
	var blocks int64
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && syscall.Lstat(path, &st) == nil && !seen[st.Ino] {
			seen[st.Ino] = true
			blocks += st.Blocks
		}
		return nil
	})
	return int(blocks * 512 / 1000)
}
