package oci_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/apparmor"
	"gantry/linux/cred"
	"gantry/oci"
)

// TestAttributes asks the kernel what it keeps of a process, in init and in one that joins.
func TestAttributes(t *testing.T) {
	const look = `grep -e '^policy' /proc/self/sched | tr -d ' '; cut -d' ' -f19 /proc/self/stat; ionice -p $$; head -n 1 /proc/self/numa_maps | cut -d' ' -f2; uname -m`
	const want = "policy:3\n7\nbest-effort: prio 3\nbind=static:0\ni686\n"
	s := dockerSpec(t, rootfs(t), "sh", "-c", look)
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7}
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 3}
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	if out, _ := run(t, s); out != want {
		t.Errorf("init: %q, want %q", out, want)
	}
	joining := *s.Process
	s.Process.Args = []string{"sleep", "1000"}
	if out, _ := execIn(t, start(t, s), &joining); out != want {
		t.Errorf("exec: %q, want %q", out, want)
	}
}

// TestWrongAttributes holds that each is refused with the name of its field, and before anything is made.
func TestWrongAttributes(t *testing.T) {
	for field, change := range map[string]func(*specs.Spec){
		"process.scheduler.policy":   func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_FAST"} },
		"process.scheduler.nice":     func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} },
		"process.scheduler.priority": func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Priority: 1} },
		"process.scheduler": func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 1, Runtime: 1}
		},
		"process.scheduler.flags": func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"X"}}
		},
		"process.ioPriority.class": func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} },
		"process.ioPriority.priority": func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		},
		"linux.memoryPolicy.mode": func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Nodes: "0"} },
		"linux.memoryPolicy.nodes": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0-9876543210"}
		},
		"requires 0 nodes but got 8": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolDefault, Nodes: "0-7"}
		},
		"linux.memoryPolicy.flags": func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"X"}}
		},
		"linux.personality.domain": func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} },
		"linux.personality.flags": func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"X"}}
		},
	} {
		s := dockerSpec(t, rootfs(t), "true")
		change(s)
		_, _, err := tryRun(s)
		if !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), field) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestDefaultMemoryPolicy names no node, which the kernel takes only without a mask.
func TestDefaultMemoryPolicy(t *testing.T) {
	s := dockerSpec(t, rootfs(t), "true")
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolDefault}
	run(t, s)
}

// TestExecAffinity has a process that joins run on the processors that its specification, or else the container's, says.
func TestExecAffinity(t *testing.T) {
	s := dockerSpec(t, rootfs(t), "sleep", "1000")
	s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "1"}
	c := start(t, s)
	for own, want := range map[string]string{"": "1", "0": "0"} {
		p := *s.Process
		p.Args, p.ExecCPUAffinity = []string{"grep", "-e", "Cpus_allowed_list", "/proc/self/status"}, nil
		if own != "" {
			p.ExecCPUAffinity = &specs.CPUAffinity{Final: own}
		}
		if out, _ := execIn(t, c, &p); out != "Cpus_allowed_list:\t"+want+"\n" {
			t.Errorf("own %q: %q", own, out)
		}
	}
	p := *s.Process
	p.Args, p.ExecCPUAffinity = []string{"true"}, &specs.CPUAffinity{Final: "3-1"}
	if _, err := c.Exec(context.Background(), &p, oci.ExecOptions{}); !errdefs.Is(err, errdefs.InvalidParameter) || !strings.Contains(err.Error(), "process.execCPUAffinity.final") {
		t.Error(err)
	}
}

// TestLabelsWithoutModule asks for confinement that this kernel does not have: not to have it must not pass unnoticed.
func TestLabelsWithoutModule(t *testing.T) {
	s := dockerSpec(t, rootfs(t), "true")
	if !apparmor.Enabled() {
		s.Process.ApparmorProfile = "docker-default"
		if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), "process.apparmorProfile") {
			t.Errorf("AppArmor: %v", err)
		}
	} else {
		s.Process.ApparmorProfile = "no-such-profile"
		if _, _, err := tryRun(s); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("missing profile: %v", err)
		}
	}
	s.Process.ApparmorProfile = "unconfined" // there is nothing to do for it without AppArmor
	run(t, s)
	s.Process.User.UID = 1000
	run(t, s)
	s.Process.User.UID, s.Process.Args = 0, []string{"sleep", "1000"}
	c := start(t, s)
	p := process("true")
	p.ApparmorProfile = "unconfined"
	execIn(t, c, p)
	p.ApparmorProfile = "no-such-profile"
	if _, err := c.Exec(context.Background(), p, oci.ExecOptions{}); err == nil || !strings.Contains(err.Error(), "no-such-profile") {
		t.Errorf("exec: %v", err)
	}
	s = dockerSpec(t, rootfs(t), "true")
	s.Process.ApparmorProfile = ""
	if !cred.SELinux() {
		s.Process.SelinuxLabel = "system_u:system_r:container_t:s0"
		if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), "process.selinuxLabel") {
			t.Errorf("SELinux: %v", err)
		}
		s.Process.SelinuxLabel = ""
		s.Linux.MountLabel = "system_u:object_r:container_file_t:s0"
		if _, _, err := tryRun(s); err == nil || !strings.Contains(err.Error(), "linux.mountLabel") {
			t.Errorf("SELinux mounts: %v", err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	s := dockerSpec(t, rootfs(t), "env")
	s.Process.Env = []string{"A=1", "PATH=/bin", "B=x=y", "A=2", "HOME="}
	if out, _ := run(t, s); out != "A=2\nPATH=/bin\nB=x=y\nHOME=/root\n" {
		t.Errorf("%q", out)
	}
}

func TestIOPriority(t *testing.T) {
	root := rootfs(t)
	for class, want := range map[specs.IOPriorityClass]string{specs.IOPRIO_CLASS_RT: "realtime: prio 3", specs.IOPRIO_CLASS_BE: "best-effort: prio 3", specs.IOPRIO_CLASS_IDLE: "idle"} {
		s := dockerSpec(t, root)
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: class, Priority: 3}
		s.Process.Args = []string{"busybox", "ionice"}
		if out, _ := run(t, s); !strings.HasPrefix(out, want) {
			t.Errorf("%s: %q, want %q", class, out, want)
		}
	}
}

func TestExecAttributes(t *testing.T) {
	last := ""
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			v = strings.TrimSpace(v)
			last = v[strings.LastIndexAny(v, ",-")+1:]
		}
	}
	s := dockerSpec(t, rootfs(t), "sleep", "1000")
	s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: last}
	c := start(t, s)
	const allowed = "grep Cpus_allowed_list /proc/self/status"
	if out, _ := execIn(t, c, process("sh", "-c", allowed)); out != "Cpus_allowed_list:\t"+last+"\n" {
		t.Errorf("the container's affinity: %q", out)
	}
	p := process("sh", "-c", allowed+"; "+scheduled+"; busybox ionice; umask; grep -e NoNewPrivs -e CapBnd /proc/self/status; echo TERM=$TERM")
	p.ExecCPUAffinity = &specs.CPUAffinity{Initial: last, Final: "0"}
	p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 4}
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	mask := uint32(0o027)
	p.User.Umask, p.NoNewPrivileges = &mask, true
	p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}
	want := "Cpus_allowed_list:\t0\n4 0 3\nbest-effort: prio 6\n0027\nCapBnd:\t0000000000000001\nNoNewPrivs:\t1\nTERM=\n"
	if out, _ := execIn(t, c, p); out != want {
		t.Errorf("%q, want %q", out, want)
	}
	p.ExecCPUAffinity = &specs.CPUAffinity{Final: "7000"}
	if _, err := c.Exec(context.Background(), p, oci.ExecOptions{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("processors that are not there: %v", err)
	}
}

func TestWrongProcess(t *testing.T) {
	root := rootfs(t)
	for field, change := range map[string]func(*specs.Spec){
		"process.env[1]":      func(s *specs.Spec) { s.Process.Env = []string{"A=1", "B"} },
		"process.env[0]":      func(s *specs.Spec) { s.Process.Env = []string{"=1"} },
		"process.commandLine": func(s *specs.Spec) { s.Process.CommandLine = "cmd /c dir" },
		"process.rlimits[1].type": func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CORE"}}
		},
	} {
		s := dockerSpec(t, root, "true")
		change(s)
		if _, _, err := tryRun(s); errdefs.KindOf(err) != errdefs.InvalidParameter || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	c := start(t, dockerSpec(t, root, "sleep", "1000"))
	for name, p := range map[string]*specs.Process{"nothing": {Cwd: "/"}, "no process": nil, "relative": {Args: []string{"x"}, Cwd: "x"}} {
		if _, err := c.Exec(context.Background(), p, oci.ExecOptions{}); errdefs.KindOf(err) != errdefs.InvalidParameter {
			t.Errorf("exec of %s: %v", name, err)
		}
	}
}

// scheduled prints nice value, real-time priority and policy (fields 19, 40 and 41 of its status) of the shell that runs it.
const scheduled = `read line < /proc/self/stat; set -- ${line##*) }; shift 16; echo -n "$1 "; shift 21; echo $1 $2`
