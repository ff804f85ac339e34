// Package seccomp compiles the seccomp part of an OCI runtime specification to the BPF program the kernel runs at each system call.
//
// The program looks at the architecture, then finds the number by binary search over ranges of neighbours with the same answer, and
// looks at arguments only where a rule asks for them. A program of that shape is one the kernel (5.11 and later) can work out
// beforehand for the calls it always allows, so that those cost nothing.
package seccomp

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
)

// architecture is a system call interface of the machine.
type architecture struct {
	name  string // as the specification has it
	audit uint32 // as the kernel has it in struct seccomp_data
	wide  bool   // arguments have 64 bits
	calls string // table of names and numbers
	own   string // the same, of names whose numbers in calls do not count
	not   string // names of the table that it does not have
	base  uint32 // what its numbers begin at
	inner []multiplexer
}

// each calls f for every name of the tables and its number.
func (a architecture) each(f func(name string, number uint32)) {
	var other map[string]bool
	if a.not+a.own != "" {
		other = make(map[string]bool, 64)
		for _, table := range []string{a.not, a.own} {
			walk(table, func(name string, _ uint32) { other[name] = true })
		}
	}
	walk(a.calls, func(name string, n uint32) {
		if !other[name] {
			f(name, a.base+n)
		}
	})
	walk(a.own, func(name string, n uint32) { f(name, a.base+n) })
}

// walk calls f for every name of a table: a number says what the next name has, the others count on. There is one byte between two words.
func walk(table string, f func(name string, number uint32)) {
	next := uint32(0)
	for begin, i := 0, 0; i <= len(table); i++ {
		if i < len(table) && table[i] > ' ' {
			continue
		}
		w := table[begin:i]
		begin = i + 1
		switch {
		case w == "":
		case w[0] >= '0' && w[0] <= '9':
			n, _ := strconv.ParseUint(w, 10, 32) // no name begins like that
			next = uint32(n)
		default:
			f(w, next)
			next++
		}
	}
}

// Values of the kernel's ABI (linux/seccomp.h, linux/filter.h, linux/bpf_common.h).
const (
	retKillThread  = 0x00000000
	retKillProcess = 0x80000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
	retNotify      = 0x7fc00000

	opLoad = 0x20 // A = word at k
	opRet  = 0x06
	opJump = 0x05
	opAnd  = 0x54
	opJeq  = 0x15
	opJgt  = 0x25
	opJge  = 0x35

	offNumber, offArch, offArgs = 0, 4, 16

	enosys   = 38
	eperm    = 1
	x32Bit   = 0x40000000
	skipped  = 0xffffffff // the number of a call that a tracer has called off
	maxInsns = 4096       // BPF_MAXINSNS
	maxRules = 8192       // far above the 500 calls there are
)

// insn is struct sock_filter.
type insn struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

const auditX8664 = 0xc000003e

// rule is one rule for one system call.
type rule struct {
	action uint32
	args   []specs.LinuxSeccompArg // all must hold
}

// Compile returns the filter of p as the kernel takes it: an array of struct sock_filter, 8 bytes each, in native byte order.
//
// A system call that no rule names gets the default action; one with a number above all that the profile names gets ENOSYS unless the
// default lets it through, so that programs written for newer kernels take their fallback. A rule without conditions wins over
// others for the same call; rules with conditions are tried in order. Calls of an architecture that is not listed kill the process.
// Names that this machine does not know are passed over. A profile with neither a default action nor rules is none: the filter is nil.
func Compile(p *specs.LinuxSeccomp) ([]byte, error) {
	if p.DefaultAction == "" && len(p.Syscalls) == 0 {
		return nil, nil
	}
	archs := architectures()
	if len(archs) == 0 {
		return nil, errdefs.New(errdefs.NotImplemented, "linux.seccomp: not supported on this architecture")
	}
	fallback, err := check(p)
	if err != nil {
		return nil, err
	}
	names := mentioned(p)
	prog := []insn{{opLoad, 0, 0, offArch}}
	for i, a := range archs {
		if a.base != 0 || i > 0 && !slices.Contains(p.Architectures, specs.Arch(a.name)) {
			continue
		}
		body, err := compileArch(a, p, names, fallback)
		if err != nil {
			return nil, err
		}
		if a.audit == auditX8664 { // x32 is a part of it by number
			x32 := []insn{{opRet, 0, 0, retKillProcess}}
			if j := slices.IndexFunc(archs, func(o architecture) bool { return o.base == x32Bit }); slices.Contains(p.Architectures, specs.ArchX32) {
				if x32, err = compileArch(archs[j], p, names, fallback); err != nil {
					return nil, err
				}
			}
			body = slices.Concat([]insn{
				{opLoad, 0, 0, offNumber},
				{opJeq, 0, 1, skipped}, {opRet, 0, 0, fallback},
				{opJge, 0, 1, x32Bit}, {opJump, 0, 0, uint32(len(body))},
			}, body, x32)
		} else {
			body = slices.Concat([]insn{{opLoad, 0, 0, offNumber}, {opJeq, 0, 1, skipped}, {opRet, 0, 0, fallback}}, body)
		}
		prog = append(prog, insn{opJeq, 1, 0, a.audit}, insn{opJump, 0, 0, uint32(len(body))})
		prog = append(prog, body...)
	}
	prog = append(prog, insn{opRet, 0, 0, retKillProcess})
	if len(prog) > maxInsns {
		return nil, bad("syscalls", "the filter needs %d instructions, the kernel takes %d", len(prog), maxInsns)
	}
	out := make([]byte, 0, 8*len(prog))
	for _, in := range prog {
		out = binary.NativeEndian.AppendUint16(out, in.code)
		out = append(out, in.jt, in.jf)
		out = binary.NativeEndian.AppendUint32(out, in.k)
	}
	return out, nil
}

// span is a range of system call numbers from start to the next span's start, with the same answer.
type span struct {
	start uint32
	ret   uint32
	body  []insn // instead of ret, if arguments matter: ends with a return on every way
}

func (s span) same(o span) bool {
	return s.ret == o.ret && slices.Equal(s.body, o.body)
}

// mentions are the names of a profile, in their order.
type mentions struct {
	list []mention
	last map[string]int32 // index of a name's last mention
}

// mention is a place where a profile names a system call.
type mention struct {
	action   uint32
	rule     int32 // index of the rule
	previous int32 // index of the same name's mention before; none: -1
}

func mentioned(p *specs.LinuxSeccomp) mentions {
	n := 0
	for i := range p.Syscalls {
		n += len(p.Syscalls[i].Names)
	}
	m := mentions{make([]mention, 0, n), make(map[string]int32, n)}
	for i := range p.Syscalls {
		act, _ := action(p.Syscalls[i].Action, p.Syscalls[i].ErrnoRet) // check has seen to it
		for _, name := range p.Syscalls[i].Names {
			previous, ok := m.last[name]
			if !ok {
				previous = -1
			}
			m.last[name] = int32(len(m.list))
			m.list = append(m.list, mention{act, int32(i), previous})
		}
	}
	return m
}

// compileArch returns the part of the program for one architecture, which begins with the number loaded.
func compileArch(a architecture, p *specs.LinuxSeccomp, names mentions, fallback uint32) ([]insn, error) {
	type entry struct {
		key   uint64 // number, and index of the mention
		which int32  // of the calls that the number multiplexes; -1: it is one
	}
	entries := make([]entry, 0, len(names.list)+64)
	highest, named := uint32(0), false
	enter := func(name string, number uint32, which int32) {
		i, ok := names.last[name]
		if !ok {
			return
		}
		highest, named = max(highest, number), true
		for ; i >= 0; i = names.list[i].previous {
			if names.list[i].action != fallback { // else it says nothing new
				entries = append(entries, entry{uint64(number)<<32 | uint64(i), which})
			}
		}
	}
	a.each(func(name string, number uint32) { enter(name, number, -1) })
	for _, m := range a.inner {
		for which, name := range m.calls {
			enter(name, m.number, int32(which))
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	splits := make([][]rule, len(p.Syscalls))
	rules := func(e entry) []rule {
		m := names.list[uint32(e.key)]
		if splits[m.rule] == nil {
			splits[m.rule] = alternatives(m.action, p.Syscalls[m.rule].Args)
		}
		if e.which >= 0 {
			return narrow(splits[m.rule], uint64(e.which))
		}
		return splits[m.rule]
	}
	// Above what the profile's author knew, "not implemented" is the truth as far as the container goes.
	unknown := fallback
	if named && !lenient(fallback) {
		unknown = retErrno | enosys
	}
	spans := make([]span, 0, 256)
	add := func(s span) {
		if len(spans) == 0 || !spans[len(spans)-1].same(s) {
			spans = append(spans, s)
		}
	}
	next := uint32(0)
	for i, j := 0, 0; i < len(entries); i = j {
		n := uint32(entries[i].key >> 32)
		list := slices.Clip(rules(entries[i]))
		for j = i + 1; j < len(entries) && uint32(entries[j].key>>32) == n; j++ {
			list = append(list, rules(entries[j])...)
		}
		if n > next {
			add(span{start: next, ret: fallback})
		}
		s := span{start: n}
		var err error
		if s.ret, s.body, err = decide(list, fallback, a.wide); err != nil {
			return nil, err
		}
		add(s)
		next = n + 1
	}
	if next <= highest {
		add(span{start: next, ret: fallback})
		next = highest + 1
	}
	add(span{start: next, ret: unknown})
	return search(spans), nil
}

// alternatives turns the conditions of a rule into rules: all must hold, but several for one argument are alternatives, as libseccomp's
// users have come to write them.
func alternatives(act uint32, args []specs.LinuxSeccompArg) []rule {
	seen := [6]bool{}
	for _, a := range args {
		if seen[a.Index] {
			list := make([]rule, len(args))
			for i := range args {
				list[i] = rule{act, args[i : i+1]}
			}
			return list
		}
		seen[a.Index] = true
	}
	return []rule{{act, args}}
}

// search returns the binary search. spans is not empty and sorted.
func search(spans []span) []insn {
	t := tree{code: make([]insn, 0, 4*len(spans)), rets: map[uint32]int{}}
	if entry := t.add(spans); entry != len(t.code)-1 {
		t.jump(entry)
	}
	slices.Reverse(t.code)
	return t.code
}

// tree is a binary search that is written from its end, so that a jump knows how far it goes: all jumps lead forward. Returns are shared as far as jumps reach.
type tree struct {
	code []insn
	rets map[uint32]int // by value, the place of the return that was written last
}

// reach is how many instructions a conditional jump can skip.
const reach = 255

// add writes the search of spans, as far as it is not there, and returns its place, counted from the end.
func (t *tree) add(spans []span) int {
	if len(spans) == 1 {
		return t.leaf(spans[0])
	}
	mid := len(spans) / 2
	high := t.add(spans[mid:])
	low := t.add(spans[:mid])
	// Two instructions may come between them and the comparison.
	if len(t.code)-low > reach-1 {
		low = t.jump(low)
	}
	if len(t.code)-high > reach {
		high = t.jump(high)
	}
	t.code = append(t.code, insn{opJge, uint8(len(t.code) - high - 1), uint8(len(t.code) - low - 1), spans[mid].start})
	return len(t.code) - 1
}

func (t *tree) leaf(s span) int {
	if s.body == nil {
		if at, ok := t.rets[s.ret]; ok && len(t.code)-at < reach/2 { // near enough for what comes before
			return at
		}
		t.rets[s.ret] = len(t.code)
		t.code = append(t.code, insn{opRet, 0, 0, s.ret})
	}
	for _, in := range slices.Backward(s.body) {
		t.code = append(t.code, in)
	}
	return len(t.code) - 1
}

func (t *tree) jump(to int) int {
	t.code = append(t.code, insn{opJump, 0, 0, uint32(len(t.code) - to - 1)})
	return len(t.code) - 1
}

// decide emits the rules of one system call, or returns what it is answered whatever its arguments are.
func decide(list []rule, fallback uint32, wide bool) (ret uint32, prog []insn, err error) {
	for _, r := range list {
		if len(r.args) == 0 {
			return r.action, nil, nil
		}
	}
	for _, r := range list {
		var body []insn
		var fails []int // jumps of body that lead to the next rule
		for _, a := range r.args {
			code, f, err := condition(a, wide)
			if err != nil {
				return 0, nil, err
			}
			for _, i := range f {
				fails = append(fails, len(body)+i)
			}
			body = append(body, code...)
		}
		body = append(body, insn{opRet, 0, 0, r.action})
		for _, i := range fails {
			away := len(body) - i - 1
			if away > 255 {
				return 0, nil, errdefs.New(errdefs.InvalidParameter, "a rule has too many conditions")
			}
			if body[i].jt == failMark {
				body[i].jt = uint8(away)
			}
			if body[i].jf == failMark {
				body[i].jf = uint8(away)
			}
		}
		prog = append(prog, body...)
	}
	return 0, append(prog, insn{opRet, 0, 0, fallback}), nil
}

// failMark stands for "to the next rule" until that is known.
const failMark = 0xff

// condition emits one comparison of an argument, which falls through when it holds. fails are the instructions with a failMark.
func condition(a specs.LinuxSeccompArg, wide bool) (prog []insn, fails []int, err error) {
	low := uint32(offArgs + 8*a.Index)
	high := low + 4
	if isBigEndian() {
		low, high = high, low
	}
	vl, vh := uint32(a.Value), uint32(a.Value>>32)
	wanted := a.ValueTwo & a.Value // bits that the mask takes away cannot be asked for
	tl, th := uint32(wanted), uint32(wanted>>32)
	const F = failMark
	load := func(off uint32) { prog = append(prog, insn{opLoad, 0, 0, off}) }
	jump := func(code uint16, k uint32, jt, jf uint8) { prog = append(prog, insn{code, jt, jf, k}) }
	switch a.Op {
	case specs.OpEqualTo:
		if wide {
			load(high)
			jump(opJeq, vh, 0, F)
		}
		load(low)
		jump(opJeq, vl, 0, F)
	case specs.OpNotEqual:
		if wide {
			load(high)
			jump(opJeq, vh, 0, 2)
		}
		load(low)
		jump(opJeq, vl, F, 0)
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		last := uint16(opJgt)
		if a.Op == specs.OpGreaterEqual {
			last = opJge
		}
		if wide {
			load(high)
			jump(opJgt, vh, 3, 0)
			jump(opJeq, vh, 0, F)
		}
		load(low)
		jump(last, vl, 0, F)
	case specs.OpLessThan, specs.OpLessEqual:
		last := uint16(opJge)
		if a.Op == specs.OpLessEqual {
			last = opJgt
		}
		if wide {
			load(high)
			jump(opJgt, vh, F, 0)
			jump(opJeq, vh, 0, 2)
		}
		load(low)
		jump(last, vl, F, 0)
	case specs.OpMaskedEqual:
		if wide {
			load(high)
			prog = append(prog, insn{opAnd, 0, 0, vh})
			jump(opJeq, th, 0, F)
		}
		load(low)
		prog = append(prog, insn{opAnd, 0, 0, vl})
		jump(opJeq, tl, 0, F)
	default:
		return nil, nil, errdefs.New(errdefs.InvalidParameter, "operator %q is unknown", a.Op)
	}
	for i, in := range prog {
		if in.code&0x07 == opJump && (in.jt == F || in.jf == F) {
			fails = append(fails, i)
		}
	}
	return prog, fails, nil
}

func isBigEndian() bool {
	return binary.NativeEndian.Uint16([]byte{0, 1}) == 1
}
