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
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
)

// architecture is a system call interface of the machine.
type architecture struct {
	name  string // as the specification has it
	audit uint32 // as the kernel has it in struct seccomp_data
	wide  bool   // arguments have 64 bits
	calls string // table of names and numbers
	not   string // names of the table that it does not have
	base  uint32 // what its numbers begin at
	inner []multiplexer
}

// numbers returns the table as a map.
func (a architecture) numbers() map[string]uint32 {
	m := make(map[string]uint32, 512)
	next := uint32(0)
	for w := range strings.FieldsSeq(a.calls) {
		if w[0] >= '0' && w[0] <= '9' {
			n, _ := strconv.ParseUint(w, 10, 32) // no name begins like that
			next = uint32(n)
			continue
		}
		m[w] = a.base + next
		next++
	}
	for w := range strings.FieldsSeq(a.not) {
		delete(m, w)
	}
	return m
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
	prog := []insn{{opLoad, 0, 0, offArch}}
	for i, a := range archs {
		if a.base != 0 || i > 0 && !slices.Contains(p.Architectures, specs.Arch(a.name)) {
			continue
		}
		body, err := compileArch(a, p, fallback)
		if err != nil {
			return nil, err
		}
		if a.audit == auditX8664 { // x32 is a part of it by number
			x32 := []insn{{opRet, 0, 0, retKillProcess}}
			if j := slices.IndexFunc(archs, func(o architecture) bool { return o.base == x32Bit }); slices.Contains(p.Architectures, specs.ArchX32) {
				if x32, err = compileArch(archs[j], p, fallback); err != nil {
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
	body  []insn // ends with a return on every way
}

// compileArch returns the part of the program for one architecture, which begins with the number loaded.
func compileArch(a architecture, p *specs.LinuxSeccomp, fallback uint32) ([]insn, error) {
	numbers := a.numbers()
	type entry struct {
		number uint32
		rules  []rule
	}
	entries := make([]entry, 0, 512)
	highest, named := uint32(0), false
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		act, _ := action(s.Action, s.ErrnoRet) // check has seen to it
		var split []rule
		for _, name := range s.Names {
			n, direct := numbers[name]
			m, which, inner := a.through(name)
			if !direct && !inner {
				continue
			}
			highest, named = max(highest, n, m), true
			if act == fallback {
				continue // says nothing new
			}
			if split == nil {
				split = alternatives(act, s.Args)
			}
			if direct {
				entries = append(entries, entry{n, split})
			}
			if inner {
				entries = append(entries, entry{m, narrow(split, which)})
			}
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.number, b.number) })
	// Above what the profile's author knew, "not implemented" is the truth as far as the container goes.
	unknown := fallback
	if named && !lenient(fallback) {
		unknown = retErrno | enosys
	}
	ret := func(v uint32) []insn { return []insn{{opRet, 0, 0, v}} }
	spans := make([]span, 0, 256)
	add := func(start uint32, body []insn) {
		if len(spans) > 0 && slices.Equal(spans[len(spans)-1].body, body) {
			return
		}
		spans = append(spans, span{start, body})
	}
	next := uint32(0)
	for i, j := 0, 0; i < len(entries); i = j {
		n, list := entries[i].number, slices.Clip(entries[i].rules)
		for j = i + 1; j < len(entries) && entries[j].number == n; j++ {
			list = append(list, entries[j].rules...)
		}
		if n > next {
			add(next, ret(fallback))
		}
		body, err := decide(list, fallback, a.wide)
		if err != nil {
			return nil, err
		}
		add(n, body)
		next = n + 1
	}
	if next <= highest {
		add(next, ret(fallback))
		next = highest + 1
	}
	add(next, ret(unknown))
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

// search emits the binary search. spans is not empty and sorted.
func search(spans []span) []insn {
	if len(spans) == 1 {
		return spans[0].body
	}
	mid := len(spans) / 2
	low, high := search(spans[:mid]), search(spans[mid:])
	var prog []insn
	if len(low) <= 255 {
		prog = []insn{{opJge, uint8(len(low)), 0, spans[mid].start}}
	} else {
		prog = []insn{{opJge, 0, 1, spans[mid].start}, {opJump, 0, 0, uint32(len(low))}}
	}
	return slices.Concat(prog, low, high)
}

// decide emits the rules of one system call.
func decide(list []rule, fallback uint32, wide bool) ([]insn, error) {
	for _, r := range list {
		if len(r.args) == 0 {
			return []insn{{opRet, 0, 0, r.action}}, nil
		}
	}
	var prog []insn
	for _, r := range list {
		var body []insn
		var fails []int // jumps of body that lead to the next rule
		for _, a := range r.args {
			code, f, err := condition(a, wide)
			if err != nil {
				return nil, err
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
				return nil, errdefs.New(errdefs.InvalidParameter, "a rule has too many conditions")
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
	return append(prog, insn{opRet, 0, 0, fallback}), nil
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
