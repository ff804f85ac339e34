package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"testing"

	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// call is what the kernel shows a filter.
type call struct {
	number, arch uint32
	args         [6]uint64
}

// eval runs a filter as the kernel would; ok is false when the program is not well formed.
func eval(t testing.TB, filter []byte, c call) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.NativeEndian.PutUint32(data[0:], c.number)
	binary.NativeEndian.PutUint32(data[4:], c.arch)
	for i, a := range c.args {
		binary.NativeEndian.PutUint64(data[16+8*i:], a)
	}
	n := len(filter) / 8
	a := uint32(0)
	for pc := 0; pc < n; pc++ {
		code := binary.NativeEndian.Uint16(filter[8*pc:])
		jt, jf := int(filter[8*pc+2]), int(filter[8*pc+3])
		k := binary.NativeEndian.Uint32(filter[8*pc+4:])
		jump := func(cond bool) {
			if cond {
				pc += jt
			} else {
				pc += jf
			}
		}
		switch code {
		case opLoad:
			a = binary.NativeEndian.Uint32(data[k:])
		case opRet:
			return k
		case opJump:
			pc += int(k)
		case opAnd:
			a &= k
		case opJeq:
			jump(a == k)
		case opJgt:
			jump(a > k)
		case opJge:
			jump(a >= k)
		default:
			t.Fatalf("instruction %d: unknown code %#x", pc, code)
		}
	}
	t.Fatalf("the program runs past its end")
	return 0
}

// meaning is what a profile says of an architecture, without any cleverness.
type meaning struct {
	p       *specs.LinuxSeccomp
	wide    bool
	rules   map[uint32][]saying // by number, in the profile's order
	named   bool                // it names anything
	highest uint32
}

// saying is one name in a rule.
type saying struct {
	rule  int
	inner bool // it is reached through the call of this number, whose first argument is which
	which uint64
}

func mean(p *specs.LinuxSeccomp, a architecture) meaning {
	m := meaning{p: p, wide: a.wide, rules: map[uint32][]saying{}}
	numbers := numbersOf(a)
	for i, s := range p.Syscalls {
		for _, name := range s.Names {
			if n, ok := numbers[name]; ok {
				m.rules[n] = append(m.rules[n], saying{rule: i})
				m.named, m.highest = true, max(m.highest, n)
			}
			if n, which, ok := throughOf(a, name); ok {
				m.rules[n] = append(m.rules[n], saying{i, true, which})
				m.named, m.highest = true, max(m.highest, n)
			}
		}
	}
	return m
}

// judge is what the profile makes of a call.
func (m meaning) judge(c call) uint32 {
	fallback, _ := action(m.p.DefaultAction, m.p.DefaultErrnoRet)
	for pass := range 2 { // rules without conditions first
		for _, said := range m.rules[c.number] {
			s := m.p.Syscalls[said.rule]
			act, _ := action(s.Action, s.ErrnoRet)
			if act == fallback || (!said.inner && len(s.Args) == 0) != (pass == 0) {
				continue
			}
			for _, r := range alternatives(act, s.Args) {
				hold := !said.inner || uint32(c.args[0]) == uint32(said.which)
				for _, arg := range r.args {
					hold = hold && (said.inner && arg.Index == 0 || holds(arg, c.args[arg.Index], m.wide))
				}
				if hold {
					return act
				}
			}
		}
	}
	if m.named && c.number > m.highest && fallback != retAllow && fallback != retLog && fallback&^0xffff != retTrace {
		return retErrno | enosys
	}
	return fallback
}

func holds(a specs.LinuxSeccompArg, v uint64, wide bool) bool {
	x, y := a.Value, a.ValueTwo
	if !wide {
		v, x, y = v&0xffffffff, x&0xffffffff, y&0xffffffff
	}
	switch a.Op {
	case specs.OpEqualTo:
		return v == x
	case specs.OpNotEqual:
		return v != x
	case specs.OpGreaterThan:
		return v > x
	case specs.OpGreaterEqual:
		return v >= x
	case specs.OpLessThan:
		return v < x
	case specs.OpLessEqual:
		return v <= x
	case specs.OpMaskedEqual:
		return v&x == y&x
	}
	return false
}

// compare checks filter against the profile's meaning for every number and for arguments around those the rules name.
func compare(t testing.TB, p *specs.LinuxSeccomp, filter []byte) {
	t.Helper()
	values := []uint64{0, 1, 1 << 31, 1 << 32, 1<<64 - 1}
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				values = append(values, v, v-1, v+1, v|1<<32, v^1<<63)
			}
		}
	}
	if len(values) > 200 {
		values = values[:200]
	}
	for i, a := range architectures() {
		listed := i == 0
		for _, l := range p.Architectures {
			listed = listed || string(l) == a.name
		}
		m := mean(p, a)
		for n := a.base; n < a.base+600; n++ {
			for i, v := range values {
				if i > 0 && m.rules[n] == nil || i > 20 && len(p.Syscalls) > 50 {
					break
				}
				c := call{number: n, arch: a.audit, args: [6]uint64{v, values[(i*7+1)%len(values)], v, values[(i*5+2)%len(values)], v, v}}
				want := uint32(retKillProcess)
				if listed {
					want = m.judge(c)
				}
				if got := eval(t, filter, c); got != want {
					t.Fatalf("%s: call %d %x: filter says %#x, profile %#x", a.name, n, c.args, got, want)
				}
			}
		}
	}
	if got := eval(t, filter, call{number: 0, arch: 1}); got != retKillProcess {
		t.Errorf("strange architecture: %#x", got)
	}
}

func docker(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	p, err := profile.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_CHROOT"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDockerProfile(t *testing.T) {
	p := docker(t)
	filter, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(filter)/8)
	compare(t, p, filter)
	a := architectures()[0]
	n := numbersOf(a)
	for name, want := range map[string]uint32{"read": retAllow, "chroot": retAllow, "keyctl": retErrno | eperm, "mount": retErrno | eperm, "clone3": retErrno | enosys} {
		if got := eval(t, filter, call{number: n[name], arch: a.audit}); got != want {
			t.Errorf("%s: %#x, want %#x", name, got, want)
		}
	}
	if got := eval(t, filter, call{number: 100000, arch: a.audit}); got != retErrno|enosys {
		t.Errorf("future call: %#x", got)
	}
	if a.name == "SCMP_ARCH_X86_64" {
		for number, want := range map[uint32]uint32{1: retAllow, 514: retAllow /* ioctl */, 16: retErrno | eperm, 528: retErrno | eperm /* kexec_load */, 600: retErrno | enosys} {
			if got := eval(t, filter, call{number: x32Bit | number, arch: a.audit}); got != want {
				t.Errorf("x32 call %d: %#x, want %#x", number, got, want)
			}
		}
	}
}

func TestOperators(t *testing.T) {
	for _, op := range []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual} {
		for _, v := range []uint64{0, 7, 1 << 32, 1<<32 + 7, 1<<64 - 1} {
			two := uint(17)
			p := &specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86, specs.ArchARM},
				Syscalls: []specs.LinuxSyscall{
					{Names: []string{"read", "close", "nosuchcall"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: v, ValueTwo: v & 5, Op: op}, {Index: 3, Value: 7, Op: specs.OpLessEqual}}},
					{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: &two, Args: []specs.LinuxSeccompArg{{Index: 1, Value: v, Op: op}, {Index: 1, Value: 3, Op: specs.OpEqualTo}}},
				},
			}
			filter, err := Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, p, filter)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":3,"op":"SCMP_CMP_GE"}]}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["open","close"],"action":"SCMP_ACT_KILL"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p specs.LinuxSeccomp
		if json.Unmarshal(data, &p) != nil || len(p.Syscalls) > 8 {
			return
		}
		filter, err := Compile(&p)
		if err != nil || filter == nil {
			return
		}
		compare(t, &p, filter)
	})
}

func BenchmarkCompileDocker(b *testing.B) {
	p := docker(b)
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}

// TestTwoWays has calls that a program of the 32-bit x86 reaches directly and through another.
func TestTwoWays(t *testing.T) {
	errno := uint(77)
	arg := func(i uint, v uint64, op specs.LinuxSeccompOperator) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: i, Value: v, Op: op}
	}
	p := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"socket", "accept"}, Action: specs.ActErrno, ErrnoRet: &errno},
			{Names: []string{"connect"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{arg(0, 1, specs.OpEqualTo), arg(2, 7, specs.OpGreaterThan)}},
			{Names: []string{"shmget"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{arg(1, 3, specs.OpEqualTo), arg(1, 4, specs.OpEqualTo)}},
		},
	}
	if architectures()[0].name != "SCMP_ARCH_X86_64" {
		p.Architectures = nil
	}
	filter, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, p, filter)
	if p.Architectures == nil {
		return
	}
	const i386 = 0x40000003
	for _, c := range []struct {
		call call
		want uint32
	}{
		{call{102, i386, [6]uint64{1}}, retErrno | 77}, {call{102, i386, [6]uint64{5}}, retErrno | 77}, {call{102, i386, [6]uint64{2}}, retAllow},
		{call{359, i386, [6]uint64{}}, retErrno | 77}, {call{102, i386, [6]uint64{3, 0, 8}}, retTrap}, {call{102, i386, [6]uint64{3, 0, 7}}, retAllow},
		{call{117, i386, [6]uint64{23, 4}}, retErrno | eperm}, {call{117, i386, [6]uint64{23, 5}}, retAllow},
	} {
		if got := eval(t, filter, c.call); got != c.want {
			t.Errorf("%+v: %#x, want %#x", c.call, got, c.want)
		}
	}
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"socketcall"}, Action: specs.ActLog}) // without conditions: it wins
	if filter, err = Compile(p); err != nil {
		t.Fatal(err)
	}
	if got := eval(t, filter, call{102, i386, [6]uint64{1}}); got != retLog {
		t.Errorf("socketcall: %#x", got)
	}
}

// numbersOf returns an architecture's table as a map.
func numbersOf(a architecture) map[string]uint32 {
	m := map[string]uint32{}
	a.each(func(name string, n uint32) { m[name] = n })
	return m
}

// throughOf returns by which call, and which first argument of it, the call of that name is reached too.
func throughOf(a architecture, name string) (number uint32, which uint64, ok bool) {
	for _, m := range a.inner {
		if i := slices.Index(m.calls, name); i >= 0 {
			return m.number, uint64(i), true
		}
	}
	return 0, 0, false
}
