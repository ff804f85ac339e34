// Command guest is process 1 of the machine that tests/vm boots: it makes the machine ready as a distribution with nothing but cgroup v2
// would, starts gantryd, tries what depends on the machine, and reports on the serial console, a line for each scenario:
//
//	gantry-vm ok <name> <milliseconds>
//	gantry-vm fail <name> <what was wrong>
//	gantry-vm note <text>
//	gantry-vm alive, every few seconds
//	gantry-vm end
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// environ is what every program here is given.
var environ = []string{"PATH=/bin", "HOME=/root", "DOCKER_HOST=unix:///run/gantry.sock"}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "systemd" {
		go live()
		systemdScenarios()
		off()
	}
	if os.Getpid() != 1 {
		go live()
		if err := scenarios(); err != nil {
			say("fail machine %v", err)
		}
		return
	}
	if err := boot(); err != nil {
		say("fail boot %v", err)
	} else if err := supervise(); err != nil {
		say("fail supervise %v", err)
	}
	off()
}

// live says again and again that the machine goes on, whatever a scenario waits for.
func live() {
	for range time.Tick(5 * time.Second) {
		say("alive")
	}
}

// off ends the report and the machine.
func off() {
	say("end")
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF) // does not return
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)   // a machine that cannot be switched off; qemu ends at a restart, too
}

// say writes one line of the report.
func say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Printf("gantry-vm %s\n", strings.ReplaceAll(strings.TrimSpace(text), "\n", " | "))
}

// boot mounts what a machine has and loads the modules.
func boot() error {
	// The file system a kernel starts in can be nobody's pivot_root: a mount on top of it can.
	for _, step := range []func() error{
		func() error { return syscall.Mount("/machine", "/machine", "", syscall.MS_BIND, "") },
		func() error { return os.Chdir("/machine") },
		func() error { return syscall.Mount(".", "/", "", syscall.MS_MOVE, "") },
		func() error { return syscall.Chroot(".") },
		func() error { return os.Chdir("/") },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("change root: %w", err)
		}
	}
	if _, err := os.Stat(systemd); err == nil {
		return bootSystemd()
	}
	if err := mounts([]fileSystem{{"/proc", "proc", ""}, {"/sys", "sysfs", ""}, {"/dev", "devtmpfs", ""}, {"/dev/pts", "devpts", "ptmxmode=0666"}, {"/dev/shm", "tmpfs", ""}, {"/dev/mqueue", "mqueue", ""},
		{"/run", "tmpfs", ""}, {"/tmp", "tmpfs", ""}, {"/var", "tmpfs", ""}, {"/sys/kernel/security", "securityfs", ""}, {"/sys/fs/bpf", "bpf", ""},
		{"/sys/fs/cgroup", "cgroup2", "nsdelegate"},
	}); err != nil {
		return err
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	if err := modules(); err != nil {
		return err
	}
	if out, err := program("busybox", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("loopback: %w: %s", err, out)
	}
	return os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0o644) // the console is for the report
}

// fileSystem is one that is mounted.
type fileSystem struct{ dir, kind, data string }

func mounts(list []fileSystem) error {
	for _, m := range list {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.kind, m.dir, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

func modules() error {
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for _, file := range strings.Fields(string(order)) {
		if out, err := program("busybox", "insmod", "/modules/"+file).CombinedOutput(); err != nil {
			return fmt.Errorf("load %s: %w: %s", file, err, out)
		}
	}
	return nil
}

// systemd is a program that, where it is there, is to be the first process.
const systemd = "/lib/systemd/systemd"

// bootSystemd gives the machine to systemd, which starts the scenarios as a service.
func bootSystemd() error {
	if err := mounts([]fileSystem{{"/proc", "proc", ""}, {"/sys", "sysfs", ""}, {"/dev", "devtmpfs", ""}}); err != nil {
		return err
	}
	if err := modules(); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", systemd, syscall.Exec(systemd, []string{"/sbin/init"}, environ[:1]))
}

// supervise runs the scenarios as a process of its own and ends what lost its parent, as process 1 must.
func supervise() error {
	child, err := os.StartProcess("/bin/guest", []string{"guest"}, &os.ProcAttr{Env: environ, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case pid == child.Pid && status.ExitStatus() != 0:
			return fmt.Errorf("the scenarios ended with status %#x", int(status))
		case pid == child.Pid:
			return nil
		}
	}
}

// program returns a command of this machine.
func program(name string, args ...string) *exec.Cmd {
	c := exec.Command("/bin/"+name, args...)
	c.Env = environ
	c.WaitDelay = 10 * time.Second
	return c
}
