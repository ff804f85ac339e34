package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// On v2 access to devices is decided by a BPF program that the cgroup carries. It is small enough to write down here: for each rule,
// the last first, compare and return.

// insn is struct bpf_insn.
type insn struct {
	op   uint8
	regs uint8 // source register << 4 | destination register
	off  int16
	imm  int32
}

// deviceProgram assembles the program for rules. Each kind of access that is asked for is decided by the last rule that matches it;
// without any it is denied.
//
// The kernel calls it with r1 pointing to {access_type, major, minor}, all uint32; access_type is access<<16 | type.
func deviceProgram(rules []specs.LinuxDeviceCgroup) ([]insn, error) {
	const (
		ldw, jeq, jne, mov, and, rsh, exit = 0x61, 0x15, 0x55, 0xb7, 0x57, 0x77, 0x95 // ldx word, then with immediates, 64 bit
		movr                               = 0xbf
	)
	// r2 type, r3 kinds of access not decided yet, r4 major, r5 minor
	prog := []insn{
		{op: ldw, regs: 0x12, off: 0}, {op: movr, regs: 0x23}, {op: and, regs: 0x02, imm: 0xffff}, {op: rsh, regs: 0x03, imm: 16},
		{op: ldw, regs: 0x14, off: 4}, {op: ldw, regs: 0x15, off: 8},
	}
	kinds := map[byte]int32{'b': unix.BPF_DEVCG_DEV_BLOCK, 'c': unix.BPF_DEVCG_DEV_CHAR}
	for i := len(rules) - 1; i >= 0; i-- {
		r, err := parseRule(i, rules[i])
		if err != nil {
			return nil, err
		}
		var block []insn
		skip := func(op uint8, reg uint8, imm int32) { // the rest of the block; how long that is comes below
			block = append(block, insn{op: op, regs: reg, off: -1, imm: imm})
		}
		n := r.nodes[0]
		if len(r.nodes) == 1 {
			skip(jne, 0x02, kinds[n.kind])
		}
		if n.major != every {
			skip(jne, 0x04, int32(n.major))
		}
		if n.minor != every {
			skip(jne, 0x05, int32(n.minor))
		}
		verdict := int32(0)
		switch {
		case r.access == accessAll:
		case r.allow:
			block = append(block, insn{op: and, regs: 0x03, imm: ^int32(r.access)})
			skip(jne, 0x03, 0)
		default:
			block = append(block, insn{op: movr, regs: 0x31}, insn{op: and, regs: 0x01, imm: int32(r.access)})
			skip(jeq, 0x01, 0)
		}
		if r.allow {
			verdict = 1
		}
		block = append(block, insn{op: mov, regs: 0x00, imm: verdict}, insn{op: exit})
		for j := range block {
			if block[j].off == -1 {
				block[j].off = int16(len(block) - j - 1)
			}
		}
		prog = append(prog, block...)
		if len(block) == 2 { // it decides every access; the kernel refuses code that is never reached
			return prog, nil
		}
	}
	return append(prog, insn{op: mov, regs: 0x00, imm: 0}, insn{op: exit}), nil
}

// programName tells the programs of this package from others, such as systemd's.
const programName = "gantry_devices"

// devicesV2 gives the cgroup its rules, in place of those it has from us. No moment is without them.
func (c *Cgroup) devicesV2(rules []specs.LinuxDeviceCgroup, rootless bool) error {
	all := targetOf(rules).everything()
	dir := c.dir("")
	var err error
	switch {
	case c.taken:
		err = replaceDevices(dir, rules, all)
	case !all:
		err = attachDevices(dir, rules, nil)
	}
	if err != nil && permission(err) && (rootless || nestedUser()) { // no right to load programs: the rules of those above hold
		return nil
	}
	if err != nil {
		return fmt.Errorf("linux.resources.devices: %w", err)
	}
	return nil
}

// replaceDevices is attachDevices to a cgroup that may have a program.
func replaceDevices(dir string, rules []specs.LinuxDeviceCgroup, all bool) error {
	old, err := attachedDevices(dir)
	if err != nil {
		return err
	}
	if old != nil {
		defer old.Close()
	} else if all {
		return nil
	}
	return attachDevices(dir, rules, old)
}

// bpfTries is how often a call is made that a signal keeps from its end: the verifier gives up when one is pending, and Go's scheduler
// sends them.
const bpfTries = 100

func bpf[T any](command uintptr, attr *T) (int, error) {
	for try := 1; ; try++ {
		n, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		switch {
		case errno == 0:
			return int(n), nil
		case (errno == unix.EAGAIN || errno == unix.EINTR) && try < bpfTries:
		default:
			return 0, errno
		}
	}
}

// attachedDevices returns the program that this package has attached to the cgroup at dir, or nil.
func attachedDevices(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var ids [64]uint32
	query := struct {
		target, kind, flags, attached uint32
		ids                           unsafe.Pointer
		count, _                      uint32
	}{target: uint32(d.Fd()), kind: unix.BPF_CGROUP_DEVICE, ids: unsafe.Pointer(&ids), count: uint32(len(ids))}
	if _, err := bpf(unix.BPF_PROG_QUERY, &query); err != nil {
		return nil, fmt.Errorf("list programs: %w", err)
	}
	for _, id := range ids[:min(query.count, uint32(len(ids)))] {
		get := struct{ id, next, flags uint32 }{id: id}
		n, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, &get)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open program: %w", err)
		}
		var info struct { // the beginning of struct bpf_prog_info
			_    [64]byte
			name [16]byte
		}
		ask := struct {
			fd, size uint32
			info     unsafe.Pointer
		}{uint32(n), uint32(unsafe.Sizeof(info)), unsafe.Pointer(&info)}
		_, err = bpf(unix.BPF_OBJ_GET_INFO_BY_FD, &ask)
		if err == nil && string(bytes.TrimRight(info.name[:], "\x00")) == programName {
			return os.NewFile(uintptr(n), programName), nil
		}
		unix.Close(n)
	}
	return nil, nil
}

// attachDevices gives the v2 cgroup at dir a program for rules, in place of old, if not nil.
func attachDevices(dir string, rules []specs.LinuxDeviceCgroup, old *os.File) error {
	prog, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	license := [...]byte{'A', 'p', 'a', 'c', 'h', 'e', 0}
	load := struct {
		kind, count    uint32
		insns, license unsafe.Pointer
		logLevel, size uint32
		log            uint64
		version, flags uint32
		name           [16]byte
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(prog)), insns: unsafe.Pointer(&prog[0]), license: unsafe.Pointer(&license)}
	copy(load.name[:], programName)
	n, err := bpf(unix.BPF_PROG_LOAD, &load)
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer unix.Close(n)
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Of several programs, in this cgroup, above and below, all have to agree: an engine inside may attach its own.
	attach := struct{ target, prog, kind, flags, replace uint32 }{uint32(d.Fd()), uint32(n), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0}
	if old == nil {
		if _, err := bpf(unix.BPF_PROG_ATTACH, &attach); err != nil {
			return fmt.Errorf("attach program: %w", err)
		}
		return nil
	}
	attach.flags |= unix.BPF_F_REPLACE // Linux 5.6
	attach.replace = uint32(old.Fd())
	if _, err = bpf(unix.BPF_PROG_ATTACH, &attach); errors.Is(err, unix.EINVAL) {
		attach.flags, attach.replace = unix.BPF_F_ALLOW_MULTI, 0
		detach := struct{ target, prog, kind, flags uint32 }{uint32(d.Fd()), uint32(old.Fd()), unix.BPF_CGROUP_DEVICE, 0}
		if _, err = bpf(unix.BPF_PROG_ATTACH, &attach); err == nil { // for a moment both have to agree
			_, err = bpf(unix.BPF_PROG_DETACH, &detach)
		}
	}
	if err != nil {
		return fmt.Errorf("replace program: %w", err)
	}
	return nil
}
