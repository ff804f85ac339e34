package seccomp

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
)

func TestRefusals(t *testing.T) {
	large, one := uint(5000), uint(1)
	rule := func(action specs.LinuxSeccompAction, name string, args ...specs.LinuxSeccompArg) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{}, {Names: []string{"read", name}, Action: action, Args: args}}}
	}
	for want, p := range map[string]*specs.LinuxSeccomp{
		`linux.seccomp.defaultAction: action "SCMP_ACT_PRAY" is unknown`:                                        {DefaultAction: "SCMP_ACT_PRAY"},
		`linux.seccomp.defaultAction: action "" is unknown`:                                                     {Syscalls: []specs.LinuxSyscall{{}}},
		`linux.seccomp.defaultAction: errno 5000 is too large`:                                                  {DefaultAction: specs.ActErrno, DefaultErrnoRet: &large},
		`linux.seccomp.defaultAction: action SCMP_ACT_ALLOW takes no errno, and 1 is given`:                     {DefaultAction: specs.ActAllow, DefaultErrnoRet: &one},
		`linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action`:                         {DefaultAction: specs.ActNotify},
		`linux.seccomp.architectures[1]: architecture "SCMP_ARCH_Z80" is unknown`:                               {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, "SCMP_ARCH_Z80"}},
		`linux.seccomp.flags[0]: flag "SECCOMP_FILTER_FLAG_FLY" is unknown`:                                     {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_FLY"}},
		`linux.seccomp.syscalls[1]: action: action "x" is unknown`:                                              rule("x", "open"),
		`linux.seccomp.syscalls[1]: action: SCMP_ACT_NOTIFY cannot be used for the write syscall`:               rule(specs.ActNotify, "write"),
		`linux.seccomp.syscalls[1]: names: an empty name is no system call`:                                     rule(specs.ActErrno, ""),
		`linux.seccomp.syscalls[1]: args[0].op: operator "x" is unknown`:                                        rule(specs.ActErrno, "open", specs.LinuxSeccompArg{Op: "x"}),
		`linux.seccomp.syscalls[1]: args[1].index: 6 is above 5`:                                                rule(specs.ActErrno, "open", specs.LinuxSeccompArg{Op: specs.OpEqualTo}, specs.LinuxSeccompArg{Index: 6, Op: specs.OpEqualTo}),
		`linux.seccomp.syscalls[1]: args: 65 conditions are more than 64`:                                       rule(specs.ActErrno, "open", make([]specs.LinuxSeccompArg, 65)...),
		`linux.seccomp.architectures[0]: architecture SCMP_ARCH_S390X has another byte order than this machine`: {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchS390X}},
	} {
		if len(p.Syscalls) > 0 {
			p.Syscalls[0] = specs.LinuxSyscall{Names: []string{"close"}, Action: specs.ActLog}
		}
		_, err := Compile(p)
		if errdefs.KindOf(err) != errdefs.InvalidParameter || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestNoProfile(t *testing.T) {
	if filter, err := Compile(&specs.LinuxSeccomp{Architectures: []specs.Arch{specs.ArchX86}}); err != nil || filter != nil {
		t.Errorf("%x, %v", filter, err)
	}
}

// Architectures that this machine never runs are no reason to refuse a profile made for many.
func TestForeignArchitectures(t *testing.T) {
	p := docker(t)
	p.Architectures = nil
	for _, a := range Architectures() {
		if bigEndian(a) == isBigEndian() {
			p.Architectures = append(p.Architectures, specs.Arch(a))
		}
	}
	filter, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, p, filter)
}

func TestActions(t *testing.T) {
	const refused = 1
	seven := uint(7)
	a := architectures()[0]
	n := numbersOf(a)
	for action, want := range map[specs.LinuxSeccompAction][2]uint32{
		specs.ActKill: {retKillThread, refused}, specs.ActKillThread: {retKillThread, refused}, specs.ActKillProcess: {retKillProcess, refused}, specs.ActTrap: {retTrap, refused},
		specs.ActErrno: {retErrno | 1, retErrno | 7}, specs.ActTrace: {retTrace | 1, retTrace | 7}, specs.ActLog: {retLog, refused}, specs.ActNotify: {retNotify, refused},
	} {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdirat"}, Action: action}}}
		for i, errno := range []*uint{nil, &seven} {
			p.Syscalls[0].ErrnoRet = errno
			filter, err := Compile(p)
			if want[i] == refused {
				if err == nil {
					t.Errorf("%s with an errno is taken", action)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", action, err)
				continue
			}
			if got := eval(t, filter, call{number: n["mkdirat"], arch: a.audit}); got != want[i] {
				t.Errorf("%s: %#x, want %#x", action, got, want[i])
			}
			if Notifies(filter) != (action == specs.ActNotify) {
				t.Errorf("%s: Notifies says %v", action, Notifies(filter))
			}
		}
	}
}

// Calls that the author of a profile cannot have known are "not implemented" unless unnamed calls go through.
func TestUnknownCalls(t *testing.T) {
	a := architectures()[0]
	nosys, six := uint(enosys), uint(6)
	for _, c := range []struct {
		p    specs.LinuxSeccomp
		want uint32
	}{
		{specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, retErrno | enosys},
		{specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &six}, retErrno | enosys},
		{specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &nosys}, retErrno | enosys},
		{specs.LinuxSeccomp{DefaultAction: specs.ActKill}, retErrno | enosys},
		{specs.LinuxSeccomp{DefaultAction: specs.ActTrap}, retErrno | enosys},
		{specs.LinuxSeccomp{DefaultAction: specs.ActTrace}, retTrace | 1},
		{specs.LinuxSeccomp{DefaultAction: specs.ActLog}, retLog},
		{specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, retAllow},
	} {
		c.p.Syscalls = []specs.LinuxSyscall{{Names: []string{"close", "no_such_call"}, Action: specs.ActKillProcess}}
		filter, err := Compile(&c.p)
		if err != nil {
			t.Fatal(err)
		}
		if got := eval(t, filter, call{number: 5000, arch: a.audit}); got != c.want {
			t.Errorf("default %s: call 5000 gets %#x, want %#x", c.p.DefaultAction, got, c.want)
		}
		fallback, _ := action(c.p.DefaultAction, c.p.DefaultErrnoRet)
		if got := eval(t, filter, call{number: skipped, arch: a.audit}); got != fallback {
			t.Errorf("default %s: a call that a tracer has called off gets %#x, want %#x", c.p.DefaultAction, got, fallback)
		}
	}
}

func TestFlags(t *testing.T) {
	notify, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdirat"}, Action: specs.ActNotify}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags         []specs.LinuxSeccompFlag
		plain, notify uint64
	}{
		{nil, 4, 12},
		{[]specs.LinuxSeccompFlag{}, 0, 8},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, 0, 8},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}, 6, 14},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, 0, 40},
	} {
		for filter, want := range map[*[]byte]uint64{{}: c.plain, &notify: c.notify} {
			if got, err := Flags(&specs.LinuxSeccomp{Flags: c.flags}, *filter); err != nil || got != want {
				t.Errorf("%v: %d, %v, want %d", c.flags, got, err, want)
			}
		}
	}
}
