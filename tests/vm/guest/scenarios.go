package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long one command or one condition may take: the machine is emulated, and its host busy.
const patience = 90 * time.Second

const groups = "/sys/fs/cgroup/gantry"

// daemon is the gantryd of this machine.
var daemon *exec.Cmd

// scenarios starts the daemon and tries everything in order.
func scenarios() error {
	note()
	if err := start(); err != nil {
		return err
	}
	if out, code := gantry("import", "/image.tar", "busybox"); code != 0 {
		return fmt.Errorf("import: %s", out)
	}
	before := census()
	for _, s := range []struct {
		name string
		run  func() error
	}{
		{"info", info}, {"run", run}, {"limits", limits}, {"oom", oom}, {"pause", pause}, {"stats", stats}, {"update", update}, {"top", top},
		{"exec", execGroup}, {"devices", devices}, {"cgroupns", cgroupns}, {"privileged", privileged}, {"host-cgroupns", hostCgroupns}, {"kill", kill}, {"publish", publish}, {"apparmor", apparmor},
		{"daemon-crash", daemonCrash}, {"shim-crash", shimCrash},
		{"nothing-left", func() error { return left(before) }},
	} {
		at := time.Now()
		if err := s.run(); err != nil {
			say("fail %s %v", s.name, err)
			clear()
			continue
		}
		say("ok %s %d", s.name, time.Since(at).Milliseconds())
	}
	runtimeScenarios()
	units()
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := daemon.Wait(); err != nil {
		return fmt.Errorf("gantryd at SIGTERM: %w", err)
	}
	return nil
}

// note tells what kind of machine this is.
func note() {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	controllers, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	lsm, _ := os.ReadFile("/sys/kernel/security/lsm")
	say("note Linux %s, cgroup v2 with %s, security modules %s", strings.TrimSpace(string(release)), strings.TrimSpace(string(controllers)), lsm)
}

// start starts gantryd and waits until it answers.
func start() error {
	log, err := os.OpenFile("/var/gantryd.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	daemon = program("gantryd")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		return err
	}
	return until("gantryd to answer", func() error {
		if out, code := gantry("ping"); code != 0 {
			body, _ := os.ReadFile("/var/gantryd.log")
			return fmt.Errorf("%s\n%s", out, body)
		}
		return nil
	})
}

// gantry runs one command and returns what it prints and its exit code.
func gantry(args ...string) (string, int) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/gantry", args...)
	c.Env = environ
	out, err := c.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil && c.ProcessState == nil {
		return err.Error(), -1
	}
	return text, c.ProcessState.ExitCode()
}

// must runs a command that has to succeed.
func must(args ...string) (string, error) {
	out, code := gantry(args...)
	if code != 0 {
		return out, fmt.Errorf("gantry %s: status %d: %s", strings.Join(args, " "), code, out)
	}
	return out, nil
}

// expect runs a command that has to print want and end with code.
func expect(want string, code int, args ...string) error {
	out, have := gantry(args...)
	if out != want || have != code {
		return fmt.Errorf("gantry %s: prints %q with status %d, want %q with %d", strings.Join(args, " "), out, have, want, code)
	}
	return nil
}

// until waits for a condition.
func until(what string, condition func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
	}
}

// running starts a container of the given flags that does nothing, and returns its cgroup.
func running(name string, flags ...string) (dir string, err error) {
	id, err := must(append(append([]string{"run", "-d", "--name", name}, flags...), "busybox", "sleep", "1000000")...)
	if err != nil {
		return "", err
	}
	return filepath.Join(groups, id[max(0, len(id)-64):]), nil
}

func remove(name string) error {
	_, err := must("rm", "-f", name)
	return err
}

// clear removes what a failed scenario left.
func clear() {
	for id := range strings.FieldsSeq(first(gantry("ps", "-aq"))) {
		gantry("rm", "-f", id)
	}
}

func first(s string, _ int) string { return s }

// files compares the contents of a cgroup's files.
func files(dir string, want map[string]string) error {
	var errs []error
	for name, value := range want {
		body, err := os.ReadFile(filepath.Join(dir, name))
		if have := strings.TrimSpace(string(body)); err != nil || have != value {
			errs = append(errs, fmt.Errorf("%s is %q, want %q, %w", name, have, value, err))
		}
	}
	return errors.Join(errs...)
}

func info() error {
	return expect("2 cgroupfs", 0, "info", "--format", "{{.CgroupVersion}} {{.CgroupDriver}}")
}

func run() error {
	for _, c := range []struct {
		want string
		code int
		args []string
	}{
		{"hello", 0, []string{"echo", "hello"}}, {"", 7, []string{"sh", "-c", "exit 7"}}, {"", 143, []string{"sh", "-c", "trap 'exit 143' TERM; kill $$"}}, {"1", 0, []string{"sh", "-c", "echo $$"}},
	} {
		if err := expect(c.want, c.code, append([]string{"run", "--rm", "busybox"}, c.args...)...); err != nil {
			return err
		}
	}
	if out, code := gantry("run", "--rm", "busybox", "/no/such"); code != 127 {
		return fmt.Errorf("a missing program: status %d, %s", code, out)
	}
	return nil
}

func limits() error {
	dir, err := running("limits", "-m", "64m", "--memory-reservation", "32m", "--memory-swap", "96m", "--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "1", "--pids-limit", "50",
		"--blkio-weight", "300", "--device-read-bps", "/dev/loop0:1mb")
	if err != nil {
		return err
	}
	want := map[string]string{"memory.max": "67108864", "memory.low": "33554432", "memory.swap.max": "33554432", "cpu.max": "50000 100000",
		"cpuset.cpus": "1", "pids.max": "50", "io.max": "7:0 rbps=1048576 wbps=max riops=max wiops=max"}
	if err := files(dir, want); err != nil {
		return err
	}
	weight, err := os.ReadFile(dir + "/cpu.weight")
	if n, _ := strconv.Atoi(strings.TrimSpace(string(weight))); err != nil || n != 59 { // shares of half a default
		return fmt.Errorf("cpu.weight %q, %w", weight, err)
	}
	weights := map[string]string{"io.bfq.weight": "default 300", "io.weight": "default 2930"} // the second where there is no first
	for _, name := range []string{"io.bfq.weight", "io.weight"} {
		if _, err := os.Stat(dir + "/" + name); err != nil {
			say("note this kernel has no %s", name)
			continue
		}
		if err := files(dir, map[string]string{name: weights[name]}); err != nil {
			return err
		}
		break
	}
	if err := expect("67108864", 0, "exec", "limits", "cat", "/sys/fs/cgroup/memory.max"); err != nil {
		return err
	}
	return remove("limits")
}

func oom() error {
	started := strconv.FormatInt(time.Now().Unix()-1, 10)
	if _, err := must("run", "-d", "--name", "oom", "-m", "16m", "--memory-swap", "16m", "busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"); err != nil {
		return err
	}
	if err := expect("137", 0, "wait", "oom"); err != nil {
		return err
	}
	if err := expect("true 137 exited", 0, "inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.Status}}", "oom"); err != nil {
		return err
	}
	if err := remove("oom"); err != nil {
		return err
	}
	// One process of several: the container goes on, and the event is told while it runs.
	if _, err := must("run", "-d", "--name", "oom2", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1000000"); err != nil {
		return err
	}
	if err := until("the event", func() error {
		out, err := must("events", "--since", started, "--until", strconv.FormatInt(time.Now().Unix(), 10), "--filter", "event=oom", "--format", "{{.Actor.Attributes.name}} {{.Action}}")
		if err == nil && !strings.Contains(out, "oom2 oom") {
			err = fmt.Errorf("events: %s", out)
		}
		return err
	}); err != nil {
		return err
	}
	if err := expect("running", 0, "inspect", "--format", "{{.State.Status}}", "oom2"); err != nil {
		return err
	}
	return remove("oom2")
}

func pause() error {
	dir, err := running("pause")
	if err != nil {
		return err
	}
	if _, err := must("pause", "pause"); err != nil {
		return err
	}
	if err := files(dir, map[string]string{"cgroup.freeze": "1"}); err != nil {
		return err
	}
	if err := expect("paused true", 0, "inspect", "--format", "{{.State.Status}} {{.State.Paused}}", "pause"); err != nil {
		return err
	}
	if out, code := gantry("exec", "pause", "true"); code == 0 || !strings.Contains(out, "paused") {
		return fmt.Errorf("exec in a paused container: %d, %s", code, out)
	}
	if _, err := must("unpause", "pause"); err != nil {
		return err
	}
	if err := expect("on", 0, "exec", "pause", "echo", "on"); err != nil {
		return err
	}
	if _, err := must("pause", "pause"); err != nil {
		return err
	}
	if _, err := must("kill", "pause"); err != nil {
		return err
	}
	if err := expect("137", 0, "wait", "pause"); err != nil {
		return err
	}
	if err := remove("pause"); err != nil {
		return err
	}
	if _, err := running("paused"); err != nil {
		return err
	}
	if _, err := must("pause", "paused"); err != nil {
		return err
	}
	return remove("paused")
}

func stats() error {
	if _, err := must("run", "-d", "--name", "stats", "-m", "64m", "--pids-limit", "20", "busybox", "sh", "-c", "head -c 8000000 /dev/zero >/dev/shm/x; while :; do :; done"); err != nil {
		return err
	}
	if err := until("the loop", func() error {
		out, err := must("stats", "--no-stream", "--format", "{{.CPUPerc}};{{.MemUsage}};{{.MemPerc}};{{.PIDs}};{{.NetIO}};{{.BlockIO}}", "stats")
		if err != nil {
			return err
		}
		m := regexp.MustCompile(`^([0-9.]+)%;([0-9.]+)MiB / 64MiB;([0-9.]+)%;1;`).FindStringSubmatch(out)
		if m == nil {
			return fmt.Errorf("stats: %s", out)
		}
		cpu, _ := strconv.ParseFloat(m[1], 64)
		mem, _ := strconv.ParseFloat(m[2], 64)
		if cpu < 5 || mem < 7 {
			return fmt.Errorf("stats: %s", out)
		}
		return nil
	}); err != nil {
		return err
	}
	return remove("stats")
}

func update() error {
	dir, err := running("update", "-m", "64m")
	if err != nil {
		return err
	}
	if _, err := must("update", "-m", "128m", "--memory-swap", "128m", "--cpus", "0.25", "--pids-limit", "30", "--cpuset-cpus", "0", "--cpu-shares", "2048", "--blkio-weight", "10", "update"); err != nil {
		return err
	}
	if err := files(dir, map[string]string{"memory.max": "134217728", "memory.swap.max": "0", "cpu.max": "25000 100000", "pids.max": "30", "cpuset.cpus": "0"}); err != nil {
		return err
	}
	if _, err := must("update", "-m", "32m", "--memory-swap", "-1", "update"); err != nil {
		return err
	}
	if err := files(dir, map[string]string{"memory.max": "33554432", "memory.swap.max": "max", "cpu.max": "25000 100000"}); err != nil {
		return err
	}
	return remove("update")
}

func top() error {
	if _, err := must("run", "-d", "--name", "top", "busybox", "sh", "-c", "sleep 654321 & sleep 123456"); err != nil {
		return err
	}
	if err := until("both processes", func() error {
		out, err := must("top", "top")
		if err == nil && (!strings.Contains(out, "sleep 654321") || !strings.Contains(out, "sleep 123456")) {
			err = errors.New(out)
		}
		return err
	}); err != nil {
		return err
	}
	return remove("top")
}

func execGroup() error {
	dir, err := running("exec")
	if err != nil {
		return err
	}
	if _, err := must("exec", "-d", "exec", "sleep", "777777"); err != nil {
		return err
	}
	if err := until("two processes in the cgroup", func() error {
		body, err := os.ReadFile(dir + "/cgroup.procs")
		if err == nil && len(strings.Fields(string(body))) != 2 {
			err = fmt.Errorf("processes %q", body)
		}
		return err
	}); err != nil {
		return err
	}
	if err := expect("0::/", 0, "exec", "exec", "cat", "/proc/self/cgroup"); err != nil {
		return err
	}
	return remove("exec")
}

// devices opens a block device, by a node of its own making where none was given.
func devices() error {
	const try = "mknod /x b 7 0 && head -c 0 /x 2>&1 && cat </dev/null >/dev/zero && echo open"
	out, code := gantry("run", "--rm", "busybox", "sh", "-c", "mknod /x b 7 0; : </x")
	if code == 0 || !strings.Contains(out, "Operation not permitted") {
		return fmt.Errorf("a block device without --device: status %d, %s", code, out)
	}
	if err := expect("open", 0, "run", "--rm", "--device", "/dev/loop0", "busybox", "sh", "-c", ": </dev/loop0 && "+try); err != nil {
		return err
	}
	if out, code := gantry("run", "--rm", "--device", "/dev/loop0:/dev/it:r", "busybox", "sh", "-c", ": </dev/it && : >>/dev/it"); code == 0 || !strings.Contains(out, "Operation not permitted") {
		return fmt.Errorf("writing to a device given for reading: status %d, %s", code, out)
	}
	if err := expect("open", 0, "run", "--rm", "--device-cgroup-rule", "b 7:* rwm", "busybox", "sh", "-c", try); err != nil {
		return err
	}
	if err := expect("open", 0, "run", "--rm", "--privileged", "busybox", "sh", "-c", ": </dev/loop0 && "+try); err != nil {
		return err
	}
	return expect("x", 0, "run", "--rm", "-t", "busybox", "sh", "-c", "for d in null zero full random urandom tty; do : </dev/$d || exit; done; echo x")
}

func cgroupns() error {
	if err := expect("0::/", 0, "run", "--rm", "busybox", "cat", "/proc/self/cgroup"); err != nil {
		return err
	}
	out, code := gantry("run", "--rm", "--memory", "32m", "busybox", "sh", "-c", "exec 2>&1; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cgroup.procs; grep ' /sys/fs/cgroup ' /proc/self/mountinfo; mkdir /sys/fs/cgroup/x")
	if code == 0 || !strings.HasPrefix(out, "33554432\n1\n") || !strings.Contains(out, "Read-only file system") || !strings.Contains(out, " / /sys/fs/cgroup ro,") || !strings.Contains(out, "cgroup2") {
		return fmt.Errorf("/sys/fs/cgroup: status %d, %s", code, out)
	}
	return nil
}

// privileged makes a cgroup inside, as an engine in a container does.
func privileged() error {
	return expect("made", 0, "run", "--rm", "--privileged", "busybox", "sh", "-c",
		"cd /sys/fs/cgroup && mkdir inner && echo $$ >inner/cgroup.procs && echo +memory >cgroup.subtree_control && test -e inner/memory.max && echo made")
}

func hostCgroupns() error {
	out, code := gantry("run", "--rm", "--cgroupns", "host", "busybox", "sh", "-c", "exec 2>&1; cat /proc/self/cgroup; ls -d /sys/fs/cgroup/gantry; mkdir /sys/fs/cgroup/x")
	if code == 0 || !regexp.MustCompile(`^0::/gantry/[0-9a-f]{64}\n/sys/fs/cgroup/gantry\n`).MatchString(out) {
		return fmt.Errorf("status %d, %s", code, out)
	}
	return nil
}

// kill ends a container of many processes, whose first leaves the others.
func kill() error {
	dir, err := running("kill", "--pid", "host")
	if err != nil {
		return err
	}
	if _, err := must("exec", "-d", "kill", "sleep", "888888"); err != nil {
		return err
	}
	if err := expect("kill", 0, "kill", "kill"); err != nil {
		return err
	}
	if err := until("the cgroup to go", func() error { return gone(dir) }); err != nil {
		return err
	}
	return remove("kill")
}

func gone(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is there, %w", path, err)
	}
	return nil
}

func publish() error {
	if _, err := must("run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "-p", "8081:80", "busybox", "httpd", "-f", "-h", "/etc"); err != nil {
		return err
	}
	for _, port := range []string{"8080", "8081"} {
		if err := until("an answer at port "+port, func() error {
			client := http.Client{Timeout: patience}
			r, err := client.Get("http://127.0.0.1:" + port + "/hostname")
			if err != nil {
				return err
			}
			defer r.Body.Close()
			body, err := io.ReadAll(r.Body)
			if err == nil && len(strings.TrimSpace(string(body))) != 12 {
				err = fmt.Errorf("answer %q", body)
			}
			return err
		}); err != nil {
			return err
		}
	}
	if _, err := must("run", "--rm", "busybox", "sh", "-c", "wget -q -O - http://$(ip route | awk '/default/ {print $3}'):8081/hostname"); err != nil {
		return err
	}
	return remove("web")
}

func apparmor() error {
	enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	say("note AppArmor enabled: %q", strings.TrimSpace(string(enabled)))
	for _, option := range []string{"apparmor=unconfined", "seccomp=unconfined", "no-new-privileges"} {
		if err := expect("hello", 0, "run", "--rm", "--security-opt", option, "busybox", "echo", "hello"); err != nil {
			return err
		}
	}
	if strings.HasPrefix(string(enabled), "Y") {
		if out, code := gantry("run", "--rm", "--security-opt", "apparmor=no-such-profile", "busybox", "true"); code == 0 || !strings.Contains(out, "no-such-profile") {
			return fmt.Errorf("a profile that is not loaded: status %d, %s", code, out)
		}
	}
	return nil
}

// daemonCrash kills gantryd with containers running.
func daemonCrash() error {
	dir, err := running("crash", "-m", "64m", "-p", "8082:80")
	if err != nil {
		return err
	}
	if _, err := must("run", "-d", "--name", "meanwhile", "busybox", "sh", "-c", "sleep 5; exit 9"); err != nil {
		return err
	}
	if err := daemon.Process.Kill(); err != nil {
		return err
	}
	_ = daemon.Wait() // killed
	if err := until("the second container to end", func() error {
		if entries, err := os.ReadDir(groups); err != nil || countDirs(entries) != 1 {
			return fmt.Errorf("%d cgroups, %w", countDirs(entries), err)
		}
		return nil
	}); err != nil {
		say("note the cgroup of a container that ended without a daemon: %v", err)
	}
	if err := start(); err != nil {
		return err
	}
	if err := expect("running", 0, "inspect", "--format", "{{.State.Status}}", "crash"); err != nil {
		return err
	}
	if err := expect("9", 0, "wait", "meanwhile"); err != nil {
		return err
	}
	if err := expect("0::/", 0, "exec", "crash", "cat", "/proc/self/cgroup"); err != nil {
		return err
	}
	if _, err := must("update", "-m", "96m", "--memory-swap", "-1", "crash"); err != nil {
		return err
	}
	if err := files(dir, map[string]string{"memory.max": "100663296"}); err != nil {
		return err
	}
	for _, verb := range []string{"pause", "unpause"} {
		if _, err := must(verb, "crash"); err != nil {
			return err
		}
	}
	if _, err := must("stop", "-t", "1", "crash"); err != nil {
		return err
	}
	return errors.Join(remove("crash"), remove("meanwhile"), fsck())
}

func countDirs(entries []os.DirEntry) (n int) {
	for _, e := range entries {
		if e.IsDir() {
			n++
		}
	}
	return n
}

// shimCrash kills a container's supervisor.
func shimCrash() error {
	dir, err := running("shim")
	if err != nil {
		return err
	}
	out, err := must("inspect", "--format", "{{.State.Pid}}", "shim")
	if err != nil {
		return err
	}
	stat, err := os.ReadFile("/proc/" + out + "/stat")
	if err != nil {
		return err
	}
	parent, err := strconv.Atoi(strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1])
	if err != nil || parent == 1 {
		return fmt.Errorf("the container's parent is %d, %w", parent, err)
	}
	if err := syscall.Kill(parent, syscall.SIGKILL); err != nil {
		return err
	}
	if err := until("the container to be reported dead", func() error {
		return expect("exited 137", 0, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "shim")
	}); err != nil {
		return err
	}
	if err := until("its cgroup to go", func() error { return gone(dir) }); err != nil {
		return err
	}
	if _, err := must("start", "shim"); err != nil {
		return err
	}
	return errors.Join(remove("shim"), fsck())
}

func fsck() error { return expect("clean: records, kernel and disk agree", 0, "system", "fsck") }

// census counts what a container takes from the machine.
func census() map[string]int {
	count := map[string]int{}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	count["mounts"] = strings.Count(string(mounts), "\n")
	links, _ := os.ReadDir("/sys/class/net")
	for _, l := range links {
		if strings.HasPrefix(l.Name(), "veth") {
			count["links"]++
		}
	}
	below, _ := os.ReadDir(groups) // none yet, or the containers' parent
	count["cgroups"] = countDirs(below)
	run, _ := os.ReadDir("/run/gantry/c")
	count["run folders"] = len(run)
	return count
}

// left compares the machine with what it was before any container.
func left(before map[string]int) error {
	if err := fsck(); err != nil {
		return err
	}
	return until("everything to be given back", func() error {
		after := census()
		for what, n := range after {
			if n != before[what] {
				return fmt.Errorf("%d %s instead of %d", n, what, before[what])
			}
		}
		return nil
	})
}
