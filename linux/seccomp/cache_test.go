package seccomp

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// entry is the path of a profile's filter.
func (c Cache) entry(t *testing.T) string {
	t.Helper()
	all, err := os.ReadDir(c.Dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	return filepath.Join(c.Dir, all[0].Name())
}

func TestCache(t *testing.T) {
	c := Cache{filepath.Join(t.TempDir(), "a/b")}
	p := docker(t)
	want, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	get := func() {
		t.Helper()
		if got, err := c.Compile(p); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, want %d; %v", len(got), len(want), err)
		}
	}
	get()
	path := c.entry(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// What is in the file is what counts, once it is sound.
	other := bytes.Clone(good)
	head := cacheHead(p)
	body := bytes.Repeat(want[:8], 2)
	other = append(append(other[:len(head)], make([]byte, 8)...), body...)
	for i, b := 0, sum(body); i < 8; i++ {
		other[len(head)+i] = byte(b >> (8 * i))
	}
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Compile(p); err != nil || !bytes.Equal(got, body) {
		t.Fatalf("the file was not used: %d bytes, %v", len(got), err)
	}
	damage := map[string]func() error{
		"longer":     func() error { return os.WriteFile(path, append(bytes.Clone(good), 0), 0o600) },
		"insn more":  func() error { return os.WriteFile(path, append(bytes.Clone(good), good[len(good)-8:]...), 0o600) },
		"gone":       func() error { return os.Remove(path) },
		"huge":       func() error { return os.Truncate(path, 1<<40) },
		"writable":   func() error { return os.Chmod(path, 0o620) },
		"of another": func() error { return os.Chown(path, 1234, 0) },
		"a folder":   func() error { return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700)) },
		"a link":     func() error { return errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path)) },
	}
	for _, n := range []int{0, 1, 8, len(good) / 2, len(good) - 8, len(good) - 1} {
		damage[fmt.Sprintf("%d bytes", n)] = func() error { return os.Truncate(path, int64(n)) }
	}
	for range 50 {
		at := rand.IntN(len(good))
		damage[fmt.Sprintf("byte %d", at)] = func() error {
			b := bytes.Clone(good)
			b[at] ^= 0x10
			return os.WriteFile(path, b, 0o600)
		}
	}
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(c.Dir), os.MkdirAll(c.Dir, 0o700), os.WriteFile(path, good, 0o600), do()); err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(readFilter(path, head), want) {
				t.Error("it was read")
			}
			get()
			if name == "a folder" {
				return // which stays, and costs time
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, good) {
				t.Errorf("it was not mended: %v", err)
			}
			get()
		})
	}
}

// A folder that cannot be made is no reason to fail.
func TestCacheWithoutFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := (Cache{file}).Compile(docker(t)); err != nil || len(f) == 0 {
		t.Error(err)
	}
}

func TestCacheRefusals(t *testing.T) {
	c := Cache{t.TempDir()}
	for range 2 {
		if _, err := c.Compile(&specs.LinuxSeccomp{DefaultAction: "x"}); err == nil {
			t.Error("a wrong profile is taken")
		}
		if f, err := c.Compile(&specs.LinuxSeccomp{}); f != nil || err != nil {
			t.Error(f, err)
		}
	}
	if all, err := os.ReadDir(c.Dir); err != nil || len(all) > 0 {
		t.Error(all, err)
	}
}

// Many processes, many profiles: every one gets its own filter, and the folder stays small.
func TestCacheRoom(t *testing.T) {
	c := Cache{t.TempDir()}
	for n := range 5 { // of processes that were killed
		if err := os.WriteFile(filepath.Join(c.Dir, fmt.Sprintf("0.%d", n)), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := range 3 * maxKept {
				errno := uint(n)
				p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno, ErrnoRet: &errno}}}
				want, _ := Compile(p)
				if got, err := c.Compile(p); err != nil || !bytes.Equal(got, want) {
					t.Errorf("profile %d: %d bytes, %v", n, len(got), err)
				}
			}
		})
	}
	wg.Wait()
	all, err := os.ReadDir(c.Dir)
	if err != nil || len(all) > maxKept+4 || len(all) < maxKept-4 {
		t.Errorf("%d files, %v", len(all), err)
	}
}

// No two profiles have the same head, whatever part they differ in; and no part of the specification is forgotten that may come with a newer version of it.
func TestCacheHead(t *testing.T) {
	one, two := uint(1), uint(2)
	base := func() *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, DefaultErrnoRet: &one, Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"ab", "c"}, Action: specs.ActErrno, ErrnoRet: &one, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 1, ValueTwo: 1, Op: specs.OpEqualTo}}}},
		}
	}
	heads := [][]byte{cacheHead(base())}
	for name, change := range map[string]func(*specs.LinuxSeccomp){
		"action":       func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActAllow },
		"errno":        func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = &two },
		"no errno":     func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = nil },
		"architecture": func(p *specs.LinuxSeccomp) { p.Architectures = append(p.Architectures, specs.ArchX86) },
		"names":        func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"a", "bc"} },
		"fewer names":  func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"ab"} },
		"rule":         func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActLog },
		"rule's errno": func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = &two },
		"index":        func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Index = 2 },
		"value":        func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Value = 2 },
		"second value": func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].ValueTwo = 2 },
		"operator":     func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = specs.OpNotEqual },
		"second rule":  func(p *specs.LinuxSeccomp) { p.Syscalls = append(p.Syscalls, p.Syscalls[0]) },
	} {
		p := base()
		change(p)
		head := cacheHead(p)
		if slices.ContainsFunc(heads, func(h []byte) bool { return bytes.HasPrefix(h, head) || bytes.HasPrefix(head, h) }) {
			t.Errorf("%s: no difference", name)
		}
		heads = append(heads, head)
	}
	for v, want := range map[reflect.Type]string{
		reflect.TypeFor[specs.LinuxSeccomp]():    "DefaultAction DefaultErrnoRet Architectures Flags ListenerPath ListenerMetadata Syscalls", // of flags and listener Compile knows nothing
		reflect.TypeFor[specs.LinuxSyscall]():    "Names Action ErrnoRet Args",
		reflect.TypeFor[specs.LinuxSeccompArg](): "Index Value ValueTwo Op",
	} {
		var names []string
		for _, f := range reflect.VisibleFields(v) {
			names = append(names, f.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%v has %s: cacheHead knows %s", v, got, want)
		}
	}
}

//go:embed table_arm64.go
var otherTable []byte

// Filters that an older version has kept are used for as long as compilerVersion is the same.
func TestCompilerVersion(t *testing.T) {
	all := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM}}
	for _, a := range architectures() {
		names := numbersOf(a)
		for i, name := range slices.Sorted(func(yield func(string) bool) {
			for name := range names {
				if !yield(name) {
					return
				}
			}
		}) {
			errno := uint(i)
			s := specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &errno}
			if i%50 == 0 {
				for n := range i / 50 {
					s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(n % 6), Value: 1 << n, ValueTwo: 1, Op: []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}[n%7]})
				}
			}
			all.Syscalls = append(all.Syscalls, s)
		}
	}
	h := fnv.New64a()
	filter, err := Compile(all)
	if err != nil {
		t.Fatal(err)
	}
	h.Write(filter)
	h.Write(otherTable)
	if got := fmt.Sprintf("%d %x", compilerVersion, h.Sum64()); runtime.GOARCH == "amd64" && got != "1 7552b2ecba0022e7" {
		t.Errorf("%s: Compile makes other filters than it did: compilerVersion must be raised", got)
	}
}
