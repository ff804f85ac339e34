package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
)

// Architectures returns the names of the specification's architectures.
func Architectures() []string {
	return []string{
		"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL",
		"SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390",
		"SCMP_ARCH_S390X", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
	}
}

// bigEndian reports whether an architecture has the most significant byte first.
func bigEndian(arch string) bool {
	switch arch {
	case "SCMP_ARCH_M68K", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_SHEB", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_S390", "SCMP_ARCH_S390X":
		return true
	}
	return false
}

// Actions returns the names of the specification's actions.
func Actions() []string {
	return []string{
		"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE",
		"SCMP_ACT_TRAP",
	}
}

// Operators returns the names of the specification's operators.
func Operators() []string {
	return []string{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"}
}

// FlagNames returns the names of the flags that a filter can be loaded with.
func FlagNames() []string {
	return []string{"SECCOMP_FILTER_FLAG_TSYNC", string(specs.LinuxSeccompFlagSpecAllow), string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagWaitKillableRecv)}
}

// Flags of seccomp(2).
const (
	flagLog              = 1 << 1
	flagSpecAllow        = 1 << 2
	flagNewListener      = 1 << 3
	flagWaitKillableRecv = 1 << 5
)

// Flags returns what seccomp(2) is to be told with a filter of p; p is nil for one whose profile is not known. A profile without a
// list of flags, which is not the same as one with an empty list, leaves speculation to the program.
func Flags(p *specs.LinuxSeccomp, filter []byte) (uint64, error) {
	var flags uint64
	notifies := Notifies(filter)
	if notifies {
		flags = flagNewListener
	}
	if p == nil || p.Flags == nil {
		return flags | flagSpecAllow, nil
	}
	for i, f := range p.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= flagLog
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= flagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if notifies { // the kernel refuses it without a listener, of whose answers it speaks
				flags |= flagWaitKillableRecv
			}
		case "SECCOMP_FILTER_FLAG_TSYNC": // of one thread there is nothing to synchronize
		default:
			return 0, bad(fmt.Sprintf("flags[%d]", i), "flag %q is unknown", f)
		}
	}
	return flags, nil
}

// Notifies reports whether a filter of Compile asks a listener about some calls.
func Notifies(filter []byte) bool {
	for i := 0; i+8 <= len(filter); i += 8 {
		if binary.NativeEndian.Uint16(filter[i:]) == opRet && binary.NativeEndian.Uint32(filter[i+4:]) == retNotify {
			return true
		}
	}
	return false
}

func bad(field, format string, args ...any) error {
	return errdefs.New(errdefs.InvalidParameter, "linux.seccomp."+field+": "+format, args...)
}

// check refuses what is wrong in a profile, naming the field, and returns what its default action is for the kernel.
func check(p *specs.LinuxSeccomp) (fallback uint32, err error) {
	if len(p.Syscalls) > maxRules {
		return 0, bad("syscalls", "more than %d rules", maxRules)
	}
	if fallback, err = action(p.DefaultAction, p.DefaultErrnoRet); err != nil {
		return 0, bad("defaultAction", "%w", err)
	}
	if fallback == retNotify {
		return 0, bad("defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
	}
	known := Architectures()
	for i, a := range p.Architectures {
		field := fmt.Sprintf("architectures[%d]", i)
		if !slices.Contains(known, string(a)) {
			return 0, bad(field, "architecture %q is unknown", a)
		}
		if bigEndian(string(a)) != isBigEndian() {
			return 0, bad(field, "architecture %s has another byte order than this machine", a)
		}
	}
	for i := range p.Syscalls {
		if err := checkRule(&p.Syscalls[i]); err != nil {
			return 0, bad(fmt.Sprintf("syscalls[%d]", i), "%w", err)
		}
	}
	_, err = Flags(p, nil)
	return fallback, err
}

func checkRule(s *specs.LinuxSyscall) error {
	act, err := action(s.Action, s.ErrnoRet)
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "action: %w", err)
	}
	for _, name := range s.Names {
		if name == "" {
			return errdefs.New(errdefs.InvalidParameter, "names: an empty name is no system call")
		}
		if name == "write" && act == retNotify {
			// By it the process tells who starts it of the listener.
			return errdefs.New(errdefs.InvalidParameter, "action: SCMP_ACT_NOTIFY cannot be used for the write syscall")
		}
	}
	if len(s.Args) > maxArgs {
		return errdefs.New(errdefs.InvalidParameter, "args: %d conditions are more than %d", len(s.Args), maxArgs)
	}
	for j, a := range s.Args {
		if a.Index > 5 {
			return errdefs.New(errdefs.InvalidParameter, "args[%d].index: %d is above 5", j, a.Index)
		}
		if !slices.Contains(Operators(), string(a.Op)) {
			return errdefs.New(errdefs.InvalidParameter, "args[%d].op: operator %q is unknown", j, a.Op)
		}
	}
	return nil
}

// action returns what the filter returns for an action of the specification.
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	limit, data := uint(0), uint32(0)
	var ret uint32
	switch a {
	case specs.ActErrno:
		ret, limit, data = retErrno, 4095, eperm // the kernel's MAX_ERRNO
	case specs.ActTrace:
		ret, limit, data = retTrace, 0xffff, eperm // for the tracer to read
	case specs.ActKill, specs.ActKillThread:
		ret = retKillThread
	case specs.ActKillProcess:
		ret = retKillProcess
	case specs.ActTrap:
		ret = retTrap
	case specs.ActLog:
		ret = retLog
	case specs.ActAllow:
		ret = retAllow
	case specs.ActNotify:
		ret = retNotify
	default:
		return 0, errdefs.New(errdefs.InvalidParameter, "action %q is unknown", a)
	}
	if errno == nil {
		return ret | data, nil
	}
	switch {
	case limit == 0:
		return 0, errdefs.New(errdefs.InvalidParameter, "action %s takes no errno, and %d is given", a, *errno)
	case *errno > limit:
		return 0, errdefs.New(errdefs.InvalidParameter, "errno %d is too large", *errno)
	}
	return ret | uint32(*errno), nil
}

// lenient reports whether an action lets a call through, if only to be looked at: a tracer knows of newer calls itself.
func lenient(ret uint32) bool { return ret == retAllow || ret == retLog || ret&^0xffff == retTrace }

const maxArgs = 64 // conditions of a rule; there are 6 arguments
