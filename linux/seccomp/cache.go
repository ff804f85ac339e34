package seccomp

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// compilerVersion tells filters of other compilers from this one's; a test fails when Compile makes others than it did.
const compilerVersion = 1

// Cache is Compile with a folder in which filters are kept for the next process: a lookup takes a tenth of the time. Nobody but the user of this process and root may write to the
// folder, which need not exist; what another user owns in it is not read. It is safe for use by many processes, which may be killed at any step, and holds no more than maxKept files.
//
// A file KEY holds the profile it was made of, which is compared with the one asked for, a checksum, and the filter; KEY is a hash of the profile. What is damaged counts as missing.
type Cache struct{ Dir string }

const (
	maxKept = 32      // files of a folder; the oldest go first
	maxFile = 1 << 20 // bytes; a profile whose file would be larger is compiled each time
)

// Compile returns what the function Compile does. A folder that cannot be used costs time, and nothing else.
func (c Cache) Compile(p *specs.LinuxSeccomp) ([]byte, error) {
	head := cacheHead(p)
	path := filepath.Join(c.Dir, strconv.FormatUint(sum(head), 16))
	if filter := readFilter(path, head); filter != nil {
		return filter, nil
	}
	filter, err := Compile(p)
	if err == nil && len(filter) > 0 && len(head)+8+len(filter) <= maxFile {
		_ = c.write(path, slices.Concat(head, binary.LittleEndian.AppendUint64(nil, sum(filter)), filter)) // the next process tries again
	}
	return filter, err
}

// readFilter returns the filter in a file that begins with head, or nil.
func readFilter(path string, head []byte) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o022 != 0 || info.Size() > maxFile {
		return nil
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != uint32(os.Geteuid()) {
		return nil
	}
	data := make([]byte, info.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		return nil
	}
	rest, ok := bytes.CutPrefix(data, head)
	if !ok || len(rest) <= 8 || len(rest)%8 != 0 || binary.LittleEndian.Uint64(rest) != sum(rest[8:]) {
		return nil
	}
	return rest[8:]
}

// write makes a file at once, and room for it.
func (c Cache) write(path string, data []byte) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	tmp := path + "." + strconv.Itoa(os.Getpid()) // one that is left over goes with the oldest
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil || len(entries) <= maxKept {
		return err
	}
	var kept []os.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else another has removed it
			kept = append(kept, info)
		}
	}
	slices.SortFunc(kept, func(a, b os.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, info := range kept[min(maxKept, len(kept)):] {
		if err := os.Remove(filepath.Join(c.Dir, info.Name())); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// cacheHead is how the file of a profile begins: the compiler, and all of the profile that Compile looks at, every part with its length.
func cacheHead(p *specs.LinuxSeccomp) []byte {
	var b []byte
	number := func(n uint64) { b = binary.AppendUvarint(b, n) }
	text := func(s string) {
		number(uint64(len(s)))
		b = append(b, s...)
	}
	errno := func(n *uint) {
		if n == nil {
			number(0)
		} else {
			number(1)
			number(uint64(*n))
		}
	}
	size := 64
	for i := range p.Syscalls {
		size += 64
		for _, name := range p.Syscalls[i].Names {
			size += 1 + len(name)
		}
	}
	b = make([]byte, 0, size)
	text(fmt.Sprintf("gantry seccomp filter %d %s\n", compilerVersion, runtime.GOARCH))
	text(string(p.DefaultAction))
	errno(p.DefaultErrnoRet)
	number(uint64(len(p.Architectures)))
	for _, a := range p.Architectures {
		text(string(a))
	}
	number(uint64(len(p.Syscalls)))
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		number(uint64(len(s.Names)))
		for _, name := range s.Names {
			text(name)
		}
		text(string(s.Action))
		errno(s.ErrnoRet)
		number(uint64(len(s.Args)))
		for _, a := range s.Args {
			number(uint64(a.Index))
			number(a.Value)
			number(a.ValueTwo)
			text(string(a.Op))
		}
	}
	return b
}

// sum finds damage, and files; it is no proof against who may write to the folder.
func sum(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b) // never fails
	return h.Sum64()
}
