package clone

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SchedAttr is struct sched_attr of sched_setattr(2), without its size.
type SchedAttr struct {
	Policy                    uint32
	Flags                     uint64
	Nice                      int32
	Priority                  uint32
	Runtime, Deadline, Period uint64 // ns, of SCHED_DEADLINE
}

// Scheduler sets the scheduling policy; name shows it.
func (s *Script) Scheduler(a SchedAttr, name string) {
	attr := &unix.SchedAttr{Policy: a.Policy, Flags: a.Flags, Nice: a.Nice, Priority: a.Priority, Runtime: a.Runtime, Deadline: a.Deadline, Period: a.Period}
	attr.Size = uint32(unsafe.Sizeof(*attr))
	s.call("sched_setattr", unix.SYS_SCHED_SETATTR, []Arg{Int(0), Pointer(attr, name), Int(0)})
}

// Affinity lets the process run on the processors of mask, bit by bit; name shows them.
func (s *Script) Affinity(mask []byte, name string) {
	s.call("sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, []Arg{Int(0), Int(len(mask)), Bytes(mask, name)})
}

// MemoryPolicy says from which NUMA nodes, those of mask, the process gets its memory; mode includes the flags, and name shows them.
func (s *Script) MemoryPolicy(mode uint64, mask []byte, name string) {
	nodes, bits := Int(0), 0
	if len(mask) > 0 {
		nodes, bits = Bytes(mask, "nodes"), len(mask)*8+1 // the kernel takes one less than it is told
	}
	s.call("set_mempolicy", unix.SYS_SET_MEMPOLICY, []Arg{Flags(mode, name), nodes, Int(bits)})
}
