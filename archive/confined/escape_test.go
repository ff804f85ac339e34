//go:build !cgo && amd64

package confined_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"gantry/archive"
	"gantry/archive/confined"
)

// TestConfinement has the child be one that an attacker has taken over, and looks at what it can reach.
func TestConfinement(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	lock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	_, err = confined.Unpack(t.Context(), strings.NewReader(""), confined.Job{Folder: t.TempDir(), Lock: lock, Limits: archive.Limits{Entries: underAttack}})
	if err == nil {
		t.Fatal("the child unpacked")
	}
	var reached map[string]string
	if err := json.Unmarshal([]byte(err.Error()), &reached); err != nil {
		t.Fatalf("%s: %v", reached, err)
	}
	if reached["attacks"] == "" {
		t.Fatal("nothing was tried")
	}
	delete(reached, "attacks")
	for what, how := range reached {
		t.Errorf("%s: %s", what, how)
	}
}

// underAttack is the limit of entries by which a child knows that it is to attack.
const underAttack = 666

func init() { //nolint:gochecknoinits // before TestMain, which would unpack
	if len(os.Args) == 3 && os.Args[0] == "gantry-unpack" && strings.Contains(os.Args[2], fmt.Sprint(underAttack)) {
		attack()
	}
}

// attack is what the child does instead of unpacking. It reports what should not have been possible.
func attack() {
	reached := map[string]string{}
	tried := 0
	try := func(what string, f func() error) {
		tried++
		if err := f(); err == nil {
			reached[what] = "was possible"
		}
	}
	for _, name := range []string{"/etc", "/usr", "/sys", "/dev", "/proc/sys", "/proc/sysrq-trigger", "/proc/kcore", "/proc/meminfo", "/layer/../../etc", "/proc/1/root/etc", "/proc/1/cwd/etc"} {
		try("see "+name, func() error { _, err := os.Stat(name); return err })
	}
	for fd := 3; fd < 64; fd++ {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && target != os.DevNull && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "pipe:") {
			reached[fmt.Sprint("descriptor ", fd)] = target
		}
	}
	try("write to the root", func() error { return os.WriteFile("/x", nil, 0o600) })
	try("write to its own program", func() error { _, err := os.OpenFile("/proc/self/exe", os.O_WRONLY, 0); return err })
	try("write to its namespace's settings", func() error { return os.WriteFile("/proc/self/uid_map", []byte("0 0 1"), 0) })
	try("use a device", func() error {
		if err := syscall.Mknodat(-100, "/layer/mem", syscall.S_IFCHR|0o600, 1<<8|1); err != nil {
			reached["mknod"] = err.Error() // this much is needed
		}
		_, err := os.Open("/layer/mem")
		return err
	})
	try("listen", func() error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err })
	try("use an abstract socket", func() error { _, err := net.Dial("unix", "@x"); return err })
	try("start a process", func() error { return exec.Command("/proc/self/exe").Run() })
	for what, call := range map[string][4]uintptr{
		"mount":              {syscall.SYS_MOUNT, 0, 0, 0},
		"unshare":            {syscall.SYS_UNSHARE, 0},
		"setns":              {308, 0, 0},
		"chroot":             {syscall.SYS_CHROOT, 0},
		"ptrace":             {syscall.SYS_PTRACE, 0},
		"kill":               {syscall.SYS_KILL, 1, 0},
		"socket":             {syscall.SYS_SOCKET, 1, 1},
		"ioctl":              {syscall.SYS_IOCTL, 0, 0},
		"setuid":             {syscall.SYS_SETUID, 0},
		"keyctl":             {250, 0},
		"bpf":                {321, 0},
		"prctl":              {syscall.SYS_PRCTL, 0},
		"io_uring":           {425, 1, 0},
		"fsopen":             {430, 0},
		"clone3":             {435, 0},
		"openat on a handle": {304, 0},
	} {
		if _, _, errno := syscall.RawSyscall(call[0], call[1], call[2], call[3]); errno != syscall.ENOSYS {
			reached["call "+what] = errno.Error()
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	for _, line := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapBnd:\t" + rights + "\n", "CapPrm:\t" + rights + "\n", "CapInh:\t0000000000000000\n", "CapAmb:\t0000000000000000\n"} {
		if !strings.Contains(string(status), line) {
			reached["status"] = fmt.Sprintf("no %q in %s %v", line, status, err)
		}
	}
	reached["attacks"] = fmt.Sprint(tried)
	text, err := json.Marshal(reached)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(map[string]string{"Error": string(text)})
	}
	if err != nil {
		os.Exit(3)
	}
	os.Exit(0)
}

// rights are CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, MKNOD and SETFCAP.
const rights = "000000008820001b"
