package clone

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disguise is what children do first so that their /proc/PID/exe does not lead to the file of this program: who opens that from inside a
// container and writes to it once nobody executes it any more has replaced a program that the host's root runs (CVE-2019-5736).
type disguise struct {
	code   uintptr // a copy of the interpreter that belongs to no file
	steps  []step
	names  []string
	exe    *os.File // what stands for the program
	memory memory   // what steps point to
}

var disguised *disguise

// Disguised reports whether Disguise has been called. Children must then not be born where others see them: between the clone and
// their first steps they are what they are.
func Disguised() bool { return disguised != nil }

// Disguise makes every child that Start starts from now on let go of this program's file, before all else: it takes its mappings away, and has
// an empty sealed file in memory in their place. It is for programs that start children only with Start, and is called once. An error
// means that this kernel or this process cannot do it.
func Disguise() error {
	d := &disguise{memory: memory{least: 4096}}
	if err := d.make(); err != nil {
		return fmt.Errorf("disguise: %w", err)
	}
	disguised = d
	return nil
}

// mmMap is struct prctl_mm_map of prctl(2), PR_SET_MM.
type mmMap struct {
	startCode, endCode, startData, endData, startBrk, brk, startStack, argStart, argEnd, envStart, envEnd uint64
	auxv                                                                                                  uint64
	auxvSize                                                                                              uint32
	exe                                                                                                   uint32
}

func (d *disguise) make() error {
	const setMap, mapSize = 14, 15
	var size uint32
	if err := unix.Prctl(unix.PR_SET_MM, mapSize, uintptr(unsafe.Pointer(&size)), 0, 0); err != nil {
		return err
	}
	m := place(&d.memory, mmMap{})
	if uintptr(size) != unsafe.Sizeof(*m) {
		return fmt.Errorf("this kernel's prctl_mm_map has %d bytes: %w", size, errors.ErrUnsupported)
	}
	segments, err := ownSegments()
	if err != nil {
		return err
	}
	if d.code, err = copyInterpreter(); err != nil {
		return err
	}
	n, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|mfdExec)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		n, err = unix.MemfdCreate("program", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	d.exe = os.NewFile(uintptr(n), "program")
	if _, err := unix.FcntlInt(uintptr(n), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	const page = 4096
	low, high := ^uint64(0), uint64(0)
	for _, s := range segments {
		from, to := s.vaddr&^(page-1), (s.vaddr+s.filesz+page-1)&^(page-1)
		d.add("munmap", unix.SYS_MUNMAP, uintptr(from), uintptr(to-from))
		low, high = min(low, from), max(high, to)
	}
	// What the kernel wants to know beside the file only has to be in order; arguments stay what /proc/PID/cmdline shows.
	m.startCode, m.endCode, m.startData, m.endData, m.startBrk, m.brk = low, high, low, high, high+1, high+1
	m.argStart, m.argEnd = arguments()
	m.startStack, m.envStart, m.envEnd = m.argStart, m.argEnd, m.argEnd
	m.exe = uint32(n)
	d.add("prctl", unix.SYS_PRCTL, unix.PR_SET_MM, setMap, uintptr(unsafe.Pointer(m)), unsafe.Sizeof(*m))
	d.add("close", unix.SYS_CLOSE, uintptr(n))
	return nil
}

func (d *disguise) add(name string, nr uintptr, args ...uintptr) {
	st := step{nr: nr, out: none}
	copy(st.args[:], args)
	d.steps, d.names = append(d.steps, st), append(d.names, name)
}

// mfdExec is MFD_EXEC, Linux 6.3: says that the file is meant to be executed.
const mfdExec = 0x10

// segment is a program header of a 64-bit ELF file (elf(5), Elf64_Phdr).
type segment struct {
	kind, flags                                 uint32
	off, vaddr, paddr, filesz, memsz, alignment uint64
}

// ownSegments are the parts of this program's file that are mapped.
func ownSegments() (list []segment, err error) {
	auxv, err := unix.Auxv()
	if err != nil {
		return nil, err
	}
	const atPhdr, atPhent, atPhnum = 3, 4, 5
	const loaded, selfHeaders = 1, 6 // PT_LOAD, PT_PHDR
	var headers, size, count uintptr
	for _, a := range auxv {
		switch a[0] {
		case atPhdr:
			headers = a[1]
		case atPhent:
			size = a[1]
		case atPhnum:
			count = a[1]
		}
	}
	if headers == 0 || size != unsafe.Sizeof(segment{}) {
		return nil, fmt.Errorf("the program's headers are not in memory: %w", errors.ErrUnsupported)
	}
	base := uint64(0)
	all := unsafe.Slice((*segment)(*(*unsafe.Pointer)(unsafe.Pointer(&headers))), count) // the kernel's word for where they are
	for _, p := range all {
		if p.kind == selfHeaders {
			base = uint64(headers) - p.vaddr // where it was put, if it can be anywhere
		}
	}
	for _, p := range all {
		if p.kind == loaded && p.filesz > 0 {
			p.vaddr += base
			list = append(list, p)
		}
	}
	return list, nil
}

// arguments returns where the kernel has put the command line, which os.Args are parts of.
func arguments() (from, to uint64) {
	if len(os.Args) == 0 {
		return 1 << 16, 1 << 16
	}
	first, last := os.Args[0], os.Args[len(os.Args)-1]
	from = uint64(uintptr(unsafe.Pointer(unsafe.StringData(first))))
	to = uint64(uintptr(unsafe.Pointer(unsafe.StringData(last)))) + uint64(len(last)) + 1
	if to < from || to-from > 1<<21 {
		to = from
	}
	return from, to
}

// copyInterpreter returns the address of a copy in memory of its own.
func copyInterpreter() (uintptr, error) {
	code := interpreterCode()
	if code == nil {
		return 0, fmt.Errorf("there is no interpreter that can be moved: %w", errors.ErrUnsupported)
	}
	m, err := unix.Mmap(-1, 0, len(code), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, fmt.Errorf("mmap: %w", err)
	}
	copy(m, code)
	if err := unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		return 0, fmt.Errorf("mprotect: %w", err)
	}
	return uintptr(unsafe.Pointer(&m[0])), nil
}

// endMark is behind the interpreter's last instruction.
var endMark = []byte("\x0f\x0bGantry")

// untilMark returns the code at an address as far as the mark.
func untilMark(at uintptr) []byte {
	code := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&at))), 2048)
	n := bytes.Index(code, endMark)
	return code[:n:n]
}
