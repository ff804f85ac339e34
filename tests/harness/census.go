package harness

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// Census counts what the kernel has, in the namespaces of this test binary. Each kind maps to its members, sorted.
type Census map[string][]string

// TakeCensus counts processes, mounts, namespaces, links, firewall rules, cgroups and the daemon's descriptors. Processes of the test itself count too,
// so take it when nothing of the test runs.
func (d *Daemon) TakeCensus() Census {
	c := Census{}
	namespaces := map[string]bool{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		if target, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil {
			c["processes"] = append(c["processes"], filepath.Base(target))
		} else if comm, err := os.ReadFile("/proc/" + e.Name() + "/comm"); err == nil {
			c["processes"] = append(c["processes"], strings.TrimSpace(string(comm)))
		}
		for _, kind := range []string{"net", "mnt", "pid", "ipc", "uts", "cgroup"} {
			if ns, err := os.Readlink("/proc/" + e.Name() + "/ns/" + kind); err == nil {
				namespaces[ns] = true
			}
		}
	}
	for _, dir := range []string{"/proc/self", fmt.Sprintf("/proc/%d", d.Pid())} {
		data, _ := os.ReadFile(dir + "/mountinfo")
		for line := range strings.Lines(string(data)) {
			if fields := strings.Fields(line); len(fields) > 4 {
				c["mounts"] = append(c["mounts"], fields[4])
			}
		}
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.Pid()))
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		if strings.HasPrefix(target, "net:[") {
			namespaces[target] = true
		}
		kind, _, _ := strings.Cut(target, ":[")
		c["daemon's descriptors"] = append(c["daemon's descriptors"], kind)
	}
	for ns := range namespaces {
		kind, _, _ := strings.Cut(ns, ":")
		c["namespaces"] = append(c["namespaces"], kind)
	}
	links, _ := exec.Command("ip", "-o", "link").Output()
	for line := range strings.Lines(string(links)) {
		name := strings.Fields(line)[1]
		if strings.HasPrefix(name, "veth") {
			name = "veth" // random names
		}
		c["links"] = append(c["links"], strings.TrimRight(name, ":"))
	}
	rules, _ := exec.Command("nft", "-s", "list", "ruleset").Output()
	for line := range strings.Lines(string(rules)) {
		c["firewall lines"] = append(c["firewall lines"], strings.TrimSpace(line))
	}
	c["cgroups"] = cgroups(d.CgroupParent())
	for _, dir := range []string{d.ExecRoot(), d.DataRoot()} {
		_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				rel, _ := filepath.Rel(d.Dir, path)
				if depth := strings.Count(rel, "/"); depth <= 2 {
					c["directories"] = append(c["directories"], rel)
				}
			}
			return nil
		})
	}
	for _, members := range c {
		sort.Strings(members)
	}
	return c
}

// cgroups returns the directories of all cgroups whose path contains part, parents first.
func cgroups(part string) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(path, part) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// Diff says what is in c and not in before (+), and the other way round (-).
func (c Census) Diff(before Census) []string {
	var lines []string
	kinds := map[string]bool{}
	for k := range c {
		kinds[k] = true
	}
	for k := range before {
		kinds[k] = true
	}
	for kind := range kinds {
		count := map[string]int{}
		for _, m := range c[kind] {
			count[m]++
		}
		for _, m := range before[kind] {
			count[m]--
		}
		for member, n := range count {
			if n != 0 {
				lines = append(lines, fmt.Sprintf("%s: %+d %s", kind, n, member))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// Settled takes a census once two in a row are equal: the background work of a start or a removal is over.
func (e *Env) Settled() Census {
	e.Helper()
	last := e.D.TakeCensus()
	e.Eventually(20*time.Second, func() error {
		time.Sleep(500 * time.Millisecond)
		now := e.D.TakeCensus()
		diff := now.Diff(last)
		last = now
		if len(diff) > 0 {
			return fmt.Errorf("still changing: %s", strings.Join(diff, "; "))
		}
		return nil
	})
	return last
}

// SameAs waits until the kernel has exactly what it had before, leaving out the named kinds.
func (e *Env) SameAs(before Census, leaveOut ...string) {
	e.Helper()
	err := Within(30*time.Second, func() error {
		now := e.D.TakeCensus()
		for _, kind := range leaveOut {
			delete(now, kind)
			delete(before, kind)
		}
		if diff := now.Diff(before); len(diff) > 0 {
			return fmt.Errorf("left behind (+) or missing (-):\n%s", strings.Join(diff[:min(len(diff), 40)], "\n"))
		}
		return nil
	})
	if err != nil {
		e.Error(err)
	}
}

// sweepCgroups removes the cgroups of the daemons below dir: the parents that they keep, and what is left when a test was ended with its namespaces.
func sweepCgroups(dir string) {
	left := cgroups("/" + filepath.Base(dir) + "-")
	slices.Reverse(left) // children first
	for _, path := range left {
		_ = os.Remove(path)
	}
}
