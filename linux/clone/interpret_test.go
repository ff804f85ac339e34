package clone

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gantry/linux/fd"
)

// scriptOf makes of bytes a script of calls that harm nobody, with registers, jumps, errors that are let pass, and all that is no call.
func scriptOf(data []byte) *Script {
	at := 0
	next := func(n int) int {
		if at >= len(data) {
			return 0
		}
		at++
		return int(data[at-1]) % n
	}
	s := new(Script)
	cells := place(s.room(), [4]int64{})
	var labels []Label
	var regs []Reg
	reg := func() Arg {
		if len(regs) == 0 {
			return Int(next(8))
		}
		return At(regs[next(len(regs))])
	}
	for at < len(data) && len(s.steps) < 200 {
		var options []Option
		switch next(5) {
		case 0:
			options = append(options, Ignore(syscall.Errno(1+next(130)), syscall.EBADF))
		case 1:
			l := s.Label()
			labels = append(labels, l)
			options = append(options, Else(l, syscall.EBADF, syscall.EINVAL, syscall.ENOENT))
		case 2:
			l := s.Label()
			labels = append(labels, l)
			options = append(options, Then(l))
		case 3:
			options = append(options, remembered(syscall.ENOENT, syscall.EACCES, syscall.EBADF))
		}
		if next(4) == 0 {
			options = append(options, Want(next(5)))
		}
		cell := pointer(&cells[next(len(cells))], "cell")
		switch next(9) {
		case 0:
			regs = append(regs, s.result("fcntl", unix.SYS_FCNTL, []Arg{reg(), Int(unix.F_GETFL)}, options...))
		case 1:
			s.call("fcntl", unix.SYS_FCNTL, []Arg{Int(next(40)), Int(next(5))}, options...)
		case 2:
			s.call("access", unix.SYS_FACCESSAT, []Arg{cwd, s.str([]string{"/", "/no/such", "/etc/passwd", "/etc/passwd/x"}[next(4)]), Int(next(9))}, options...)
		case 3:
			regs = append(regs, s.result("lseek", unix.SYS_LSEEK, []Arg{reg(), reg(), Int(next(4))}, options...))
		case 4:
			s.call("store", opStore, []Arg{cell, reg()}, options...)
		case 5:
			s.call("refuse", opRefuse, []Arg{cell, reg()}, options...)
		case 6:
			s.call("require", opRequire, []Arg{cell, reg()}, options...)
		case 7:
			s.call("copy_file_range", unix.SYS_COPY_FILE_RANGE, []Arg{reg(), Int(0), reg(), Int(0), reg(), reg()}, options...) // six arguments
		case 8:
			s.call("fail", opFail, []Arg{Int(next(3) * 20)}, options...)
		}
		if len(labels) > 0 && next(3) == 0 {
			s.Place(labels[0])
			labels = labels[1:]
		}
	}
	for _, l := range labels {
		s.Place(l)
	}
	s.call("exit", unix.SYS_EXIT_GROUP, []Arg{Int(0)})
	return s
}

// outcome is how a child that runs the script ends, and what it reports.
func outcome(t *testing.T, s *Script, at func() uintptr) string {
	t.Helper()
	before := interpreter
	interpreter = at
	defer func() { interpreter = before }()
	if at() == 0 { // the one in Go needs all that earlier tests have withheld
		withhold(unix.MADV_DOFORK)
	}
	c, err := Start(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next()
	e, werr := fd.Wait(c.Pidfd)
	if werr != nil {
		t.Fatal(werr)
	}
	c.Sync.Close()
	c.Pidfd.Close()
	return fmt.Sprint(m, err, e)
}

func sameOutcome(t *testing.T, data []byte) {
	t.Helper()
	inGo := outcome(t, scriptOf(data), func() uintptr { return 0 })
	inAssembler := outcome(t, scriptOf(data), interpreterAddress)
	if inGo != inAssembler {
		t.Errorf("%q: in Go %s, in assembler %s\n%s", data, inGo, inAssembler, scriptOf(data))
	}
}

// TestInterpreters holds the two interpreters against each other.
func TestInterpreters(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	ended := map[string]int{}
	for range 120 {
		data := make([]byte, 8+random.IntN(200))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		sameOutcome(t, data)
		ended[strings.Join(strings.Fields(outcome(t, scriptOf(data), interpreter))[:2], " ")]++
	}
	if len(ended) < 5 {
		t.Errorf("the scripts end in few ways: %v", ended)
	}
}

func FuzzInterpreters(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 1000 {
			sameOutcome(t, data)
		}
	})
}

// TestDisguise looks at /proc/PID/exe of a child that waits.
func TestDisguise(t *testing.T) {
	if interpreterCode() == nil {
		t.Log("there is no interpreter in assembler for this processor, and so no disguise")
		return
	}
	if err := Disguise(); err != nil {
		t.Fatal(err)
	}
	defer func() { disguised.exe.Close(); disguised = nil }()
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	var s Script
	s.Ready()
	s.Exec([]string{"/bin/true"}, []string{"true"}, nil)
	c, err := Start(&s, Options{Namespaces: unix.CLONE_NEWPID | unix.CLONE_NEWNS})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(); m != Ready || err != nil {
		t.Fatal(m, err)
	}
	file := func(name string) string { return fmt.Sprintf("/proc/%d/%s", c.Pid, name) }
	exe, err := os.Open(file("exe"))
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	if st, err := exe.Stat(); err != nil || os.SameFile(st, own) || st.Size() != 0 || !fd.IsSealed(exe) {
		t.Errorf("exe %+v, %v", st, err)
	}
	maps, err := os.ReadFile(file("maps"))
	if name, lerr := os.Readlink("/proc/self/exe"); err != nil || lerr != nil || strings.Contains(string(maps), name) {
		t.Errorf("the program is mapped: %v, %v\n%s", err, lerr, maps)
	}
	want, err := os.ReadFile("/proc/self/cmdline")
	if line, lerr := os.ReadFile(file("cmdline")); err != nil || lerr != nil || string(line) != string(want) {
		t.Errorf("command line %q, %v, want %q, %v", line, lerr, want, err)
	}
	if open, err := os.ReadDir(file("fd")); err != nil || len(open) > 4 { // standard streams and the socket
		t.Errorf("open: %v, %v", open, err)
	}
	if err := c.Go(); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(); m != Executed || err != nil {
		t.Error(m, err)
	}
	if e, err := fd.Wait(c.Pidfd); e.Code != 0 || e.Signal != 0 || err != nil {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestMemory looks at what of this process's memory a child has.
func TestMemory(t *testing.T) {
	if !withholds || interpreterAddress() == 0 {
		t.Log("children have copies of everything here")
		return
	}
	secret := strings.Repeat("what only the parent knows, ", 1<<16)
	var s Script
	s.Ready()
	s.call("exit", unix.SYS_EXIT_GROUP, []Arg{Int(7)})
	c, err := Start(&s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(); m != Ready || err != nil {
		t.Fatal(m, err)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", c.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var size uintptr
	for line := range strings.Lines(string(maps)) {
		if from, to, ok := writable([]byte(line)); ok {
			size += to - from
		}
	}
	if size == 0 || size > 4*blockSize {
		t.Errorf("the child has %d bytes that can be written to:\n%s", size, maps)
	}
	if err := c.Go(); err != nil {
		t.Fatal(err)
	}
	if e, err := fd.Wait(c.Pidfd); e.Code != 7 || err != nil {
		t.Errorf("%+v, %v", e, err)
	}
	if !strings.HasSuffix(secret, "knows, ") {
		t.Error("the parent has lost its memory")
	}
	if _, err := Start(&s, Options{}); err == nil {
		t.Error("a script was started twice")
	}
}
