// Package clone starts a process that runs a script: a linear list of system calls, prepared by the parent in ordinary Go, and
// ended by an execve. The child is a raw clone of the calling thread, straight into new namespaces and a cgroup. It has the memory of the
// script, none else of the parent's (or a copy of that, see withholds), and no Go runtime, so all it may do is walk the list. That needs neither a helper program nor C, and the steps can be printed and compared in tests.
package clone

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// Registers is how many results of steps a script can hold for later ones.
const Registers = 256

// lastRegister is the number of the highest, and a mask of numbers.
//
//lint:ignore U1000 the assembler uses it
const lastRegister = Registers - 1

// retries is how often calls of a script are made again that a signal has interrupted: a seccomp filter may answer EINTR for ever.
const retries = 1000

// ofFirst marks, in a report, the number of a step that came before the script's.
const ofFirst = 1 << 31

// Reg is a register: it holds the result of a step, mostly a descriptor number.
type Reg int16

// none as an output register means that the result is not kept.
const none Reg = -1

// Label is a place in a script to go on at.
type Label int

// special numbers of steps that are not one system call.
const (
	opFail    = 1<<20 + iota // end with errno args[0], or that remembered of failed execve steps
	opFork                   // go on in a child that is this process's sibling
	opStore                  // *(*int32)(args[0]) = args[1]
	opRefuse                 // fail with EXDEV if *(*int64)(args[0]) is args[1]
	opRequire                // fail with EXDEV if it is not
)

// step is what the child interprets. It holds no Go pointers: the child must not need the collector's cooperation.
type step struct {
	nr       uintptr
	args     [6]uintptr
	regs     uint8     // bit i: args[i] is a register's number
	out      Reg       // where the result goes
	remember bool      // an ignored errno here is what opFail reports, unless a graver one is remembered
	want     uintptr   // fewer than this as result is an end without report
	ignore   [2]uint64 // bit n: errno n is not a failure
	onIgnore int32     // the step to go on at after an ignored errno; 0: the next
	onOK     int32     // the step to go on at after success; 0: the next
}

// text is the same step for people. It is put into words only when somebody asks.
type text struct {
	StepName
	args  uint32 // index of the first in Script.args
	nargs uint8
	out   Reg
	notes []note
}

// note is what an Option says about a step.
type note struct {
	errnos []syscall.Errno
	to     Label // 0: the next step
}

func (n note) String() string {
	switch {
	case n.to == 0:
		return "or " + names(n.errnos)
	case len(n.errnos) == 0:
		return fmt.Sprintf("to L%d", n.to)
	}
	return fmt.Sprintf("%s: to L%d", names(n.errnos), n.to)
}

func (s *Script) show(t text) string {
	shown := make([]string, t.nargs)
	for i := range shown {
		shown[i] = s.args[int(t.args)+i].String()
	}
	call := t.Call + "(" + strings.Join(shown, ", ") + ")"
	if t.out != none {
		call += fmt.Sprintf(" = r%d", t.out)
	}
	if len(t.notes) == 0 {
		return call
	}
	notes := make([]string, len(t.notes))
	for i, n := range t.notes {
		notes[i] = n.String()
	}
	return call + "  [" + strings.Join(notes, "; ") + "]"
}

// usual is how many steps have room from the beginning, where the child can read them; a container's init takes some 350. Those of a script with more are copied there.
const usual = 384

// Script is a list of system calls for a child process. The zero Script is empty and ready to be added to.
type Script struct {
	steps     []step
	texts     []text
	args      []Arg           // of all steps; they keep the files
	memory    *memory         // what steps point to
	what      string          // what the steps added now are for
	next      Reg             // first free register
	patch     map[Label][]int // steps that wait for a label's place: i for onIgnore, -i-1 for onOK
	place     map[Label]int
	labels    Label
	inherited []uint32 // descriptors that steps name
	listen    int      // the step at which ReadyListen begins
	forks     bool     // it has a Fork step
	spent     bool     // it has been started, and its memory has been given back
}

// Arg is an argument of a step.
type Arg struct {
	value uintptr
	kind  kind
	text  string   // by kind: a name, a string's value
	keep  *os.File // what value is the number of, for the collector
}

type kind uint8

const (
	number   kind = iota // shown as a decimal number
	named                // shown as text
	octal                // shown as an octal number
	register             // value is a register's number
	file                 // value is an inherited descriptor, called text
	str                  // value points to the string text
)

func (a Arg) String() string {
	switch a.kind {
	case named:
		return a.text
	case octal:
		return fmt.Sprintf("%#o", a.value)
	case register:
		if a.text != "" {
			return a.text
		}
		return fmt.Sprintf("r%d", a.value)
	case file:
		return "<" + a.text + ">"
	case str:
		return fmt.Sprintf("%q", a.text)
	}
	return fmt.Sprint(int(a.value))
}

// FD is a descriptor that the child inherits; Name is how the script's text shows it.
type FD struct {
	Name string
	File *os.File
}

// Int is a number.
func Int(n int) Arg { return Arg{value: uintptr(n)} }

// Flags is a number with a name.
func Flags(n uint64, name string) Arg { return Arg{value: uintptr(n), kind: named, text: name} }

// File is an inherited descriptor.
func File(f FD) Arg {
	return Arg{value: uintptr(Number(f.File)), kind: file, text: f.Name, keep: f.File}
}

// Number returns f's descriptor number and leaves f as non-blocking as it was; -1 for nil or a closed file.
func Number(f *os.File) int {
	if f == nil {
		return -1
	}
	c, err := f.SyscallConn()
	if err != nil {
		return -1
	}
	n := -1
	if c.Control(func(fd uintptr) { n = int(fd) }) != nil {
		return -1
	}
	return n
}

// At is the result of an earlier step.
func At(r Reg) Arg { return Arg{value: uintptr(r), kind: register} }

// str is a string; it must not contain a zero byte.
func (s *Script) str(text string) Arg {
	b := s.room().take(len(text) + 1)
	copy(b, text)
	return Arg{value: uintptr(unsafe.Pointer(&b[0])), kind: str, text: text}
}

// bytes is a pointer to a copy of b, shown as name.
func (s *Script) bytes(b []byte, name string) Arg { return pointer(placeAll(s.room(), b), name) }

// pointer is a pointer into the script's memory that the kernel reads or writes, shown as name.
func pointer[T any](v *T, name string) Arg {
	return Arg{value: uintptr(unsafe.Pointer(v)), kind: named, text: name}
}

// vector is an array of C strings ended by a null pointer, as execve takes it.
func (s *Script) vector(list []string, name string) Arg {
	pointers := make([]uintptr, 0, len(list)+1)
	for _, text := range list {
		pointers = append(pointers, s.str(text).value)
	}
	return pointer(placeAll(s.room(), append(pointers, 0)), name)
}

// room is where what the steps point to is placed.
func (s *Script) room() *memory {
	if s.memory == nil {
		s.memory = &memory{}
	}
	return s.memory
}

// For says what the steps added from now on are for, as the operation and object of an error: "mount proc on /proc".
func (s *Script) For(what string) { s.what = what }

// Option changes how a step's result is taken.
type Option func(s *Script, i int)

// Ignore goes on with the next step when the call fails with one of errnos.
func Ignore(errnos ...syscall.Errno) Option {
	return func(s *Script, i int) {
		for _, e := range errnos {
			s.steps[i].ignore[e/64%2] |= 1 << (e % 64)
		}
		s.texts[i].notes = append(s.texts[i].notes, note{errnos, 0})
	}
}

// Else goes on at l when the call fails with one of errnos.
func Else(l Label, errnos ...syscall.Errno) Option {
	return func(s *Script, i int) {
		for _, e := range errnos {
			s.steps[i].ignore[e/64%2] |= 1 << (e % 64)
		}
		s.refer(l, i)
		s.texts[i].notes = append(s.texts[i].notes, note{errnos, l})
	}
}

// Then goes on at l when the call succeeds.
func Then(l Label) Option {
	return func(s *Script, i int) {
		s.refer(l, -i-1)
		s.texts[i].notes = append(s.texts[i].notes, note{nil, l})
	}
}

// Want makes a result of less than n an end of the child: the parent went away.
func Want(n int) Option {
	return func(s *Script, i int) { s.steps[i].want = uintptr(n) }
}

// remembered is Ignore whose errno Fail reports.
func remembered(errnos ...syscall.Errno) Option {
	return func(s *Script, i int) {
		Ignore(errnos...)(s, i)
		worstOf(s, i)
	}
}

// worstOf has Fail report what the step ignores.
func worstOf(s *Script, i int) { s.steps[i].remember = true }

func names(errnos []syscall.Errno) string {
	known := map[syscall.Errno]string{
		syscall.ENOENT: "ENOENT", syscall.EEXIST: "EEXIST", syscall.EINVAL: "EINVAL", syscall.ENOTDIR: "ENOTDIR", syscall.EPERM: "EPERM",
		syscall.EACCES: "EACCES", syscall.EROFS: "EROFS", syscall.ENODEV: "ENODEV", syscall.ENOTTY: "ENOTTY", syscall.ENOSYS: "ENOSYS",
		syscall.ELOOP: "ELOOP", syscall.EISDIR: "EISDIR", syscall.EDQUOT: "EDQUOT", syscall.EAGAIN: "EAGAIN",
	}
	var list []string
	for _, e := range errnos {
		name, ok := known[e]
		if !ok {
			name = fmt.Sprintf("errno %d", int(e))
		}
		list = append(list, name)
	}
	return strings.Join(list, ", ")
}

// Label makes a label that is not placed yet.
func (s *Script) Label() Label {
	s.labels++
	return s.labels
}

// Place puts l before the next step added.
func (s *Script) Place(l Label) {
	if s.place == nil {
		s.place = map[Label]int{}
	}
	s.place[l] = len(s.steps)
	for _, i := range s.patch[l] {
		if i >= 0 {
			s.steps[i].onIgnore = int32(len(s.steps))
		} else {
			s.steps[-i-1].onOK = int32(len(s.steps))
		}
	}
	delete(s.patch, l)
}

// refer notes that step i (onIgnore) or -i-1 (onOK) goes on at l.
func (s *Script) refer(l Label, i int) {
	if at, ok := s.place[l]; ok {
		if i >= 0 {
			s.steps[i].onIgnore = int32(at)
		} else {
			s.steps[-i-1].onOK = int32(at)
		}
		return
	}
	if s.patch == nil {
		s.patch = map[Label][]int{}
	}
	s.patch[l] = append(s.patch[l], i)
}

// Call adds a system call whose result is not kept.
func (s *Script) call(name string, nr uintptr, args []Arg, options ...Option) {
	s.add(name, nr, none, args, options)
}

// result adds a system call and returns the register of its result.
func (s *Script) result(name string, nr uintptr, args []Arg, options ...Option) Reg {
	r := s.Reg()
	s.add(name, nr, r, args, options)
	return r
}

// Reg takes a register that no step has used yet, or will until it is freed.
func (s *Script) Reg() Reg {
	if s.next >= SyncRegister {
		panic("clone: script needs more registers than there are") // a fixed property of the script's author, never of input
	}
	s.next++
	return s.next - 1
}

// Mark returns a mark for Release.
func (s *Script) Mark() Reg { return s.next }

// Release makes the registers taken since mark free for new results.
func (s *Script) Release(mark Reg) { s.next = mark }

func (s *Script) add(name string, nr uintptr, out Reg, args []Arg, options []Option) {
	if s.steps == nil {
		room := s.room().take(usual * int(unsafe.Sizeof(step{})))
		s.steps = unsafe.Slice((*step)(unsafe.Pointer(unsafe.SliceData(room))), usual)[:0]
		s.texts, s.args = make([]text, 0, usual), make([]Arg, 0, 3*usual)
	}
	st := step{nr: nr, out: out}
	t := text{StepName: StepName{What: s.what, Call: name}, args: uint32(len(s.args)), nargs: uint8(len(args)), out: out}
	for i, a := range args {
		st.args[i] = a.value
		switch a.kind {
		case register:
			st.regs |= 1 << i
		case file:
			s.inherited = append(s.inherited, uint32(a.value))
		}
	}
	s.args = append(s.args, args...)
	s.steps = append(s.steps, st)
	s.texts = append(s.texts, t)
	for _, o := range options {
		o(s, len(s.steps)-1)
	}
}

// String shows the script, a step a line under headings that say what for, with its jumps; without anything that differs from run
// to run.
func (s *Script) String() string {
	at := map[int][]Label{}
	for l := Label(1); l <= s.labels; l++ {
		if i, ok := s.place[l]; ok {
			at[i] = append(at[i], l)
		}
	}
	var b strings.Builder
	what := ""
	for i, t := range s.texts {
		if t.What != what {
			what = t.What
			fmt.Fprintf(&b, "# %s\n", what)
		}
		for _, l := range at[i] {
			fmt.Fprintf(&b, "L%d:\n", l)
		}
		fmt.Fprintf(&b, "  %s\n", s.show(t))
	}
	for _, l := range at[len(s.texts)] {
		fmt.Fprintf(&b, "L%d:\n", l)
	}
	return b.String()
}

// Names returns what each step is.
func (s *Script) Names() []StepName {
	list := make([]StepName, len(s.texts))
	for i, t := range s.texts {
		list[i] = t.StepName
	}
	return list
}
