package initproc

import (
	"bytes"

	"gantry/linux/clone"
)

// Scheduler is a scheduling policy.
type Scheduler struct {
	Policy string
	Attr   clone.SchedAttr
	Hint   string // why the kernel may refuse it
}

// MemoryPolicy says from which NUMA nodes memory comes.
type MemoryPolicy struct {
	Mode  uint64 // with flags
	Nodes []byte // mask
	Name  string
}

// Personality is an execution domain.
type Personality struct {
	Domain uint64
	Name   string
}

// everyCPU is more processors than any kernel knows: it takes those that there are and that the cgroup has.
func everyCPU() []byte { return bytes.Repeat([]byte{0xff}, 1024) }

// attributes sets what the kernel keeps of each process. The processors come first: the parent's are not the container's.
func (b *builder) attributes(p *Process) {
	cpus := p.CPUs
	if cpus == nil {
		cpus = everyCPU()
	}
	b.For("run on the container's processors")
	b.Affinity(cpus, "processors")
	if m := p.MemoryPolicy; m != nil {
		b.For("set memory policy")
		b.Script.MemoryPolicy(m.Mode, m.Nodes, m.Name)
	}
	if p.Personality != nil {
		b.For("set personality")
		b.Script.Personality(p.Personality.Domain, p.Personality.Name)
	}
	if s := p.Scheduler; s != nil {
		b.For("set scheduler")
		if s.Hint != "" {
			b.For("set scheduler: " + s.Hint)
		}
		b.Script.Scheduler(s.Attr, s.Policy)
	}
}
