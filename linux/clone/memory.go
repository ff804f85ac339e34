package clone

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is what a child of a script needs: what the steps point to, and the steps. It is apart from everything else, so that the child can do without all that: a page that two processes have in common is
// copied when one of them writes to it, which took a program of milliseconds a third of its time.
type memory struct {
	least  int // bytes of a block; 0: blockSize
	blocks [][]byte
	free   []byte // the rest of the last block
	err    error  // why there is none
	net    runtime.Cleanup
}

// blockSize holds what a usual script needs.
const blockSize = 64 << 10

// take returns n bytes of zeros, which begin at a multiple of 8.
func (m *memory) take(n int) []byte {
	n = (n + 7) &^ 7
	if n > len(m.free) {
		m.grow(n)
	}
	b := m.free[:n:n]
	m.free = m.free[n:]
	return b
}

func (m *memory) grow(n int) {
	size := m.least
	if size == 0 {
		size = blockSize
	}
	b, err := unix.Mmap(-1, 0, max(size, (n+4095)&^4095), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil { // Start says so; until then there must be something to write to
		m.err = fmt.Errorf("clone: memory of a script: %w", err)
		m.free = make([]byte, n)
		return
	}
	m.free, m.blocks = b, append(m.blocks, b)
	m.net.Stop()
	m.net = runtime.AddCleanup(m, unmap, m.blocks) // for scripts that are never started
}

func unmap(blocks [][]byte) {
	for _, b := range blocks {
		_ = unix.Munmap(b) // they are what mmap returned
	}
}

// release gives the memory back.
func (m *memory) release() {
	m.net.Stop()
	unmap(m.blocks)
	m.blocks, m.free = nil, nil
}

// place returns a copy of v in m. What v points to must be there, too.
func place[T any](m *memory, v T) *T {
	p := (*T)(unsafe.Pointer(unsafe.SliceData(m.take(int(unsafe.Sizeof(v))))))
	*p = v
	return p
}

// placeAll is place for the elements of list, and returns the first, which is there if list is empty.
func placeAll[T any](m *memory, list []T) *T {
	var one T
	p := (*T)(unsafe.Pointer(unsafe.SliceData(m.take(max(1, len(list)) * int(unsafe.Sizeof(one))))))
	copy(unsafe.Slice(p, len(list)), list)
	return p
}

// withhold keeps from children what this process may write to, but for what is given and for the stack of its first thread, which has the command line. What it does not reach, children get copies of, as of every
// page after a fork. Processes that share the memory with this one until they execute a program, which is how package os starts them but in user namespaces, have all of it.
func withhold(advice int, but ...[]byte) {
	maps, err := ownMaps()
	if err != nil {
		return
	}
	for line := range bytes.Lines(maps) {
		if from, to, ok := writable(line); ok {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, uintptr(advice))
		}
	}
	for _, b := range but { // neighbours may have become one mapping with these
		_ = unix.Madvise(b, unix.MADV_DOFORK)
	}
}

// ownMaps reads /proc/self/maps, without the poller.
func ownMaps() (maps []byte, err error) {
	n, err := unix.Open("/proc/self/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(n)
	for maps = make([]byte, 0, 8<<10); ; maps = slices.Grow(maps, 4<<10) { // the kernel gives a page at a time
		got, err := unix.Read(n, maps[len(maps):cap(maps)])
		if got <= 0 {
			return maps, err
		}
		maps = maps[:len(maps)+got]
	}
}

// writable reads the bounds of a private mapping that may be written to from its line of /proc/self/maps (proc_pid_maps(5)).
func writable(line []byte) (from, to uintptr, ok bool) {
	bounds, rest, _ := bytes.Cut(line, []byte(" "))
	if !bytes.HasPrefix(rest, []byte("rw-p ")) || bytes.HasSuffix(line, []byte(" [stack]\n")) {
		return 0, 0, false
	}
	low, high, _ := bytes.Cut(bounds, []byte("-"))
	a, err := strconv.ParseUint(string(low), 16, 64)
	b, err2 := strconv.ParseUint(string(high), 16, 64)
	return uintptr(a), uintptr(b), err == nil && err2 == nil
}
