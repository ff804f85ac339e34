package clone

import (
	"fmt"
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
	attr := place(s.room(), unix.SchedAttr{Policy: a.Policy, Flags: a.Flags, Nice: a.Nice, Priority: a.Priority, Runtime: a.Runtime, Deadline: a.Deadline, Period: a.Period})
	attr.Size = uint32(unsafe.Sizeof(*attr))
	s.call("sched_setattr", unix.SYS_SCHED_SETATTR, []Arg{Int(0), pointer(attr, name), Int(0)})
}

// Affinity lets the process run on the processors of mask, bit by bit; name shows them.
func (s *Script) Affinity(mask []byte, name string) {
	s.call("sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, []Arg{Int(0), Int(len(mask)), s.bytes(mask, name)})
}

// MemoryPolicy says from which NUMA nodes, those of mask, the process gets its memory; mode includes the flags, and name shows them.
func (s *Script) MemoryPolicy(mode uint64, mask []byte, name string) {
	nodes, bits := Int(0), 0
	if len(mask) > 0 {
		nodes, bits = s.bytes(mask, "nodes"), len(mask)*8+1 // the kernel takes one less than it is told
	}
	s.call("set_mempolicy", unix.SYS_SET_MEMPOLICY, []Arg{Flags(mode, name), nodes, Int(bits)})
}

// LandlockRuleset makes a ruleset that restricts the given accesses and returns its descriptor.
func (s *Script) LandlockRuleset(files, ports, scoped uint64) Reg {
	attr := place(s.room(), [3]uint64{files, ports, scoped})
	size := 24
	switch { // older kernels take less
	case scoped == 0 && ports == 0:
		size = 8
	case scoped == 0:
		size = 16
	}
	return s.result("landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, []Arg{pointer(attr, fmt.Sprintf("fs=%#x net=%#x scoped=%#x", files, ports, scoped)), Int(size), Int(0)})
}

// LandlockPath allows accesses to what file is open at, and to all below it.
func (s *Script) LandlockPath(ruleset Arg, file Reg, access uint64, options ...Option) {
	const pathBeneath = 1
	attr := place(s.room(), struct { // landlock_path_beneath_attr, which is packed
		access uint64
		parent int32
	}{access: access})
	s.store(&attr.parent, "parent_fd", At(file))
	s.call("landlock_add_rule", unix.SYS_LANDLOCK_ADD_RULE, []Arg{ruleset, Flags(pathBeneath, "PATH_BENEATH"), pointer(attr, fmt.Sprintf("%#x", access)), Int(0)}, options...)
}

// LandlockPort allows accesses to a port.
func (s *Script) LandlockPort(ruleset Arg, port uint16, access uint64) {
	const netPort = 2
	attr := place(s.room(), [2]uint64{access, uint64(port)})
	s.call("landlock_add_rule", unix.SYS_LANDLOCK_ADD_RULE, []Arg{ruleset, Flags(netPort, "NET_PORT"), pointer(attr, fmt.Sprintf("%#x port %d", access, port)), Int(0)})
}

// LandlockRestrict holds the process to the ruleset. It takes CAP_SYS_ADMIN, or no_new_privs.
func (s *Script) LandlockRestrict(ruleset Arg) {
	s.call("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, []Arg{ruleset, Int(0)})
}

// BeneathAt is Beneath with symbolic links, which stay below "at".
const BeneathAt Resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// RequireProc fails with EXDEV unless at lies on a procfs.
func (s *Script) RequireProc(at Arg) {
	st := place(s.room(), unix.Statfs_t{})
	s.call("fstatfs", unix.SYS_FSTATFS, []Arg{at, pointer(st, "statfs")})
	s.call("require", opRequire, []Arg{pointer(&st.Type, "statfs.type"), Flags(unix.PROC_SUPER_MAGIC, "PROC")})
}
