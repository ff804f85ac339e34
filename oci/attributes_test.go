package oci_test

import (
	"context"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
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
