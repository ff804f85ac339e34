package oci

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/clone"
	"gantry/linux/landlock"
	"gantry/oci/initproc"
)

// maxNumber is the number of processors, and of NUMA nodes, that a list may name: as many as the kernel can have nodes, and as its
// usual configurations can have processors twice over.
const (
	maxProcessors = 16384
	maxNodes      = 1024
)

// attributes gives the process what the kernel keeps of each one for itself: how it is scheduled, on which processors it runs, where its
// memory comes from and what machine it sees. l is the container's part of it, nil for none.
func attributes(in *initproc.Process, p *specs.Process, l *specs.Linux) error {
	if p.Scheduler != nil {
		a, err := scheduler(p.Scheduler)
		if err != nil {
			return err
		}
		in.Scheduler = &initproc.Scheduler{Policy: string(p.Scheduler.Policy), Attr: a}
		if l != nil && l.Resources != nil && l.Resources.CPU != nil && l.Resources.CPU.Cpus != "" {
			in.Scheduler.Hint = "process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)"
		}
	}
	if p.IOPriority != nil {
		class := 1 + slices.Index([]specs.IOPriorityClass{specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE}, p.IOPriority.Class)
		if class == 0 {
			return bad("process.ioPriority.class: %q is not a class", p.IOPriority.Class)
		}
		if p.IOPriority.Priority < 0 || p.IOPriority.Priority > 7 {
			return bad("process.ioPriority.priority: %d is not between 0 and 7", p.IOPriority.Priority)
		}
		in.IOPriority = &[2]int{class, p.IOPriority.Priority}
	}
	if l == nil {
		return nil
	}
	if l.MemoryPolicy != nil {
		m, err := memoryPolicy(l.MemoryPolicy)
		if err != nil {
			return err
		}
		in.MemoryPolicy = m
	}
	if l.Personality != nil {
		if len(l.Personality.Flags) > 0 {
			return bad("linux.personality.flags: %q is not supported", l.Personality.Flags[0])
		}
		domain, ok := map[specs.LinuxPersonalityDomain]uint64{specs.PerLinux: 0, specs.PerLinux32: 8}[l.Personality.Domain]
		if !ok {
			return bad("linux.personality.domain: %q is not supported (LINUX, LINUX32)", l.Personality.Domain)
		}
		in.Personality = &initproc.Personality{Domain: domain, Name: string(l.Personality.Domain)}
	}
	return nil
}

// LandlockAnnotation is the annotation whose value, the JSON of a landlock.Policy, is what all processes of a container are held to.
const LandlockAnnotation = "org.gantry.landlock"

// landlockOf gives the process what the container's annotations restrict.
func landlockOf(in *initproc.Process, s *specs.Spec) (warnings []string, err error) {
	text, ok := s.Annotations[LandlockAnnotation]
	if !ok {
		return nil, nil
	}
	p, err := landlock.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("annotations.%s: %w", LandlockAnnotation, err)
	}
	var lost []string
	if in.Landlock, lost, err = p.Compile(landlock.ABI()); err != nil {
		return nil, fmt.Errorf("annotations.%s: %w", LandlockAnnotation, err)
	}
	if len(lost) > 0 {
		warnings = append(warnings, "this kernel's Landlock does not restrict "+strings.Join(lost, ", "))
	}
	return warnings, nil
}

// affinity gives a process that joins a container the processors that its own specification, or else the container's, names.
func affinity(in *initproc.Process, own, container *specs.CPUAffinity) error {
	a := own
	if a == nil {
		a = container
	}
	if a == nil {
		return nil
	}
	var err error
	if a.Initial != "" {
		if in.FirstCPUs, err = numbers(a.Initial, maxProcessors); err != nil {
			return bad("process.execCPUAffinity.initial: %w", err)
		}
		in.CPUs = in.FirstCPUs
	}
	if a.Final != "" {
		if in.CPUs, err = numbers(a.Final, maxProcessors); err != nil {
			return bad("process.execCPUAffinity.final: %w", err)
		}
	}
	return nil
}

func scheduler(s *specs.Scheduler) (clone.SchedAttr, error) {
	policies := map[specs.LinuxSchedulerPolicy]uint32{
		specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
	}
	policy, ok := policies[s.Policy]
	switch {
	case !ok:
		return clone.SchedAttr{}, bad("process.scheduler.policy: %q is not a policy", s.Policy)
	case s.Nice < -20 || s.Nice > 19:
		return clone.SchedAttr{}, bad("process.scheduler.nice: %d is not between -20 and 19", s.Nice)
	case s.Priority != 0 && s.Policy != specs.SchedFIFO && s.Policy != specs.SchedRR:
		return clone.SchedAttr{}, bad("process.scheduler.priority: only SCHED_FIFO and SCHED_RR have one")
	case s.Priority < 0 || s.Priority > 99:
		return clone.SchedAttr{}, bad("process.scheduler.priority: %d is not between 0 and 99", s.Priority)
	case s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
		return clone.SchedAttr{}, bad("process.scheduler: only SCHED_DEADLINE has runtime, deadline and period")
	}
	a := clone.SchedAttr{Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	order := []specs.LinuxSchedulerFlag{
		specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun, specs.SchedFlagKeepPolicy, specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax,
	}
	for _, f := range s.Flags {
		i := slices.Index(order, f)
		if i < 0 {
			return a, bad("process.scheduler.flags: %q is not a flag", f)
		}
		a.Flags |= 1 << i
	}
	return a, nil
}

func memoryPolicy(m *specs.LinuxMemoryPolicy) (*initproc.MemoryPolicy, error) {
	modes := []specs.MemoryPolicyModeType{
		specs.MpolDefault, specs.MpolPreferred, specs.MpolBind, specs.MpolInterleave, specs.MpolLocal, specs.MpolPreferredMany, specs.MpolWeightedInterleave,
	}
	mode := slices.Index(modes, m.Mode)
	if mode < 0 {
		return nil, bad("linux.memoryPolicy.mode: invalid memory policy mode %q", m.Mode)
	}
	flags := map[specs.MemoryPolicyFlagType]uint64{specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15}
	p := &initproc.MemoryPolicy{Mode: uint64(mode), Name: string(m.Mode)}
	for _, f := range m.Flags {
		if flags[f] == 0 {
			return nil, bad("linux.memoryPolicy.flags: invalid memory policy flag %q", f)
		}
		p.Mode |= flags[f]
		p.Name += "|" + string(f)
	}
	if m.Nodes == "" {
		return p, nil
	}
	var err error
	if p.Nodes, err = numbers(m.Nodes, maxNodes); err != nil {
		return nil, bad("linux.memoryPolicy.nodes: invalid memory policy node list: %w", err)
	}
	if m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal {
		return nil, bad("linux.memoryPolicy.nodes: %s mode requires 0 nodes but got %d", m.Mode, ones(p.Nodes))
	}
	return p, nil
}

func ones(mask []byte) int {
	n := 0
	for _, b := range mask {
		for ; b != 0; b &= b - 1 {
			n++
		}
	}
	return n
}

// numbers reads a list like "0-3,7" into a mask of whole machine words, least significant bit first. Numbers are below limit.
func numbers(list string, limit int) ([]byte, error) {
	var mask []byte
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.ParseUint(first, 10, 31)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(last, 10, 31)
		}
		switch {
		case err != nil:
			return nil, bad("%q is not a number or a range of numbers", part)
		case b < a:
			return nil, bad("the range %q ends before it begins", part)
		case b >= uint64(limit):
			return nil, bad("%d is more than the last possible, %d", b, limit-1)
		}
		const word = 8
		if need := (int(b)/(word*8) + 1) * word; need > len(mask) {
			mask = append(mask, make([]byte, need-len(mask))...)
		}
		for n := a; n <= b; n++ {
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return mask, nil
}
