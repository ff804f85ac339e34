package seccomp

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// underFilter runs calls in a thread that has loaded filter, and that ends afterwards.
func underFilter(filter []byte, flags uintptr, calls func()) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		program := unix.SockFprog{Len: uint16(len(filter) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program))); errno != 0 {
				err = fmt.Errorf("load filter: %w", errno)
			} else {
				calls()
			}
		}
		done <- err
	}()
	return <-done
}

// TestKernel has the kernel judge getpid, which looks at no argument, by random rules about all of them; it must agree with the profile.
func TestKernel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	words := []uint64{0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, 1<<32 + 1, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	a := architectures()[0]
	answers := map[uint32]int{}
	for range 60 {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX32, specs.ArchX86}}
		for i := range 1 + random.IntN(4) {
			errno := uint(100 + i)
			s := specs.LinuxSyscall{Names: []string{"getpid"}, Action: specs.ActErrno, ErrnoRet: &errno}
			for range 1 + random.IntN(3) {
				s.Args = append(s.Args, specs.LinuxSeccompArg{
					Index: uint(random.IntN(6)), Value: words[random.IntN(len(words))], ValueTwo: words[random.IntN(len(words))],
					Op: specs.LinuxSeccompOperator(Operators()[random.IntN(7)]),
				})
			}
			p.Syscalls = append(p.Syscalls, s)
		}
		filter, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		m := mean(p, a)
		var wrong string
		err = underFilter(filter, 0, func() {
			for range 300 {
				var v [6]uint64
				for i := range v {
					v[i] = words[random.IntN(len(words))]
				}
				_, _, errno := syscall.RawSyscall6(unix.SYS_GETPID, uintptr(v[0]), uintptr(v[1]), uintptr(v[2]), uintptr(v[3]), uintptr(v[4]), uintptr(v[5]))
				want := m.judge(call{number: unix.SYS_GETPID, arch: a.audit, args: v})
				got := uint32(retAllow)
				if errno != 0 {
					got = retErrno | uint32(errno)
				}
				answers[got]++
				if got != want {
					wrong = fmt.Sprintf("getpid(%x): %#x, want %#x", v, got, want)
					return
				}
			}
		})
		if err != nil || wrong != "" {
			t.Fatalf("%v %s with %+v", err, wrong, p.Syscalls)
		}
	}
	if len(answers) < 4 {
		t.Errorf("too few kinds of answers to have tested much: %v", answers)
	}
}

// TestKernelTakes has the kernel take the filters of large profiles, with every flag.
func TestKernelTakes(t *testing.T) {
	every := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
	for name := range numbersOf(architectures()[0]) { // no two calls with the same answer
		every.Syscalls = append(every.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{
			{Index: 5, Op: specs.OpEqualTo, Value: uint64(len(every.Syscalls)) + 1<<40},
		}})
	}
	for name, p := range map[string]*specs.LinuxSeccomp{"docker": docker(t), "every": every} {
		filter, err := Compile(p)
		if name == "every" && err != nil { // too long for a filter: it must say so
			p.Architectures = nil
			filter, err = Compile(p)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, "SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagWaitKillableRecv}
		flags, err := Flags(p, filter)
		if err != nil {
			t.Fatal(err)
		}
		if err := underFilter(filter, uintptr(flags), func() {}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		compare(t, p, filter)
	}
}
