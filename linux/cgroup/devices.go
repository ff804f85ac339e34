package cgroup

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
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

// deviceProgram assembles the program for rules. Of several that match an access the last decides; without any it is denied.
//
// The kernel calls it with r1 pointing to {access_type, major, minor}, all uint32; access_type is access<<16 | type.
func deviceProgram(rules []specs.LinuxDeviceCgroup) ([]insn, error) {
	const (
		ldw, jne, mov, and, rsh, exit = 0x61, 0x55, 0xb7, 0x57, 0x77, 0x95 // ldx word, jne imm, mov imm, and imm, rsh imm (64 bit)
		movr                          = 0xbf
	)
	// r2 type, r3 access, r4 major, r5 minor
	prog := []insn{
		{op: ldw, regs: 0x12, off: 0}, {op: movr, regs: 0x23}, {op: and, regs: 0x02, imm: 0xffff}, {op: rsh, regs: 0x03, imm: 16},
		{op: ldw, regs: 0x14, off: 4}, {op: ldw, regs: 0x15, off: 8},
	}
	kinds := map[string]int32{"b": unix.BPF_DEVCG_DEV_BLOCK, "c": unix.BPF_DEVCG_DEV_CHAR}
	for i := len(rules) - 1; i >= 0; i-- {
		d := rules[i]
		var block []insn
		skip := func(op uint8, reg uint8, imm int32) {
			block = append(block, insn{op: op, regs: reg, off: -1, imm: imm})
		} // off patched below
		if d.Type != "a" && d.Type != "" {
			kind, ok := kinds[d.Type]
			if !ok {
				return nil, errdefs.New(errdefs.InvalidParameter, "device rule of unknown type %q", d.Type)
			}
			skip(jne, 0x02, kind)
		}
		access := int32(0)
		for _, r := range d.Access {
			switch r {
			case 'r':
				access |= unix.BPF_DEVCG_ACC_READ
			case 'w':
				access |= unix.BPF_DEVCG_ACC_WRITE
			case 'm':
				access |= unix.BPF_DEVCG_ACC_MKNOD
			default:
				return nil, errdefs.New(errdefs.InvalidParameter, "device rule with unknown access %q", d.Access)
			}
		}
		const all = unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE | unix.BPF_DEVCG_ACC_MKNOD
		if access != 0 && access != all {
			// An allowing rule must cover all that is asked; a denying one matches when it covers any of it.
			block = append(block, insn{op: movr, regs: 0x31})
			if d.Allow {
				block = append(block, insn{op: and, regs: 0x01, imm: all &^ access})
				skip(jne, 0x01, 0)
			} else {
				block = append(block, insn{op: and, regs: 0x01, imm: access})
				skip(0x15, 0x01, 0) // jeq
			}
		}
		if d.Major != nil && *d.Major >= 0 {
			skip(jne, 0x04, int32(*d.Major))
		}
		if d.Minor != nil && *d.Minor >= 0 {
			skip(jne, 0x05, int32(*d.Minor))
		}
		verdict := int32(0)
		if d.Allow {
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

// attachDevices gives the v2 cgroup at dir a program for rules, in place of one it has from us.
func attachDevices(dir string, rules []specs.LinuxDeviceCgroup) error {
	prog, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	wrap := func(err error) error { return fmt.Errorf("restrict devices: %w", err) }
	license := [...]byte{'A', 'p', 'a', 'c', 'h', 'e', 0}
	load := struct {
		kind, count    uint32
		insns, license unsafe.Pointer
		logLevel, size uint32
		log            uint64
		version, flags uint32
		name           [16]byte
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(prog)), insns: unsafe.Pointer(&prog[0]), license: unsafe.Pointer(&license)}
	copy(load.name[:], "gantry_devices")
	n, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		return wrap(fmt.Errorf("load program: %w", errno))
	}
	defer unix.Close(int(n))
	d, err := os.Open(dir)
	if err != nil {
		return wrap(err)
	}
	defer d.Close()
	attach := struct{ target, prog, kind, flags uint32 }{uint32(d.Fd()), uint32(n), unix.BPF_CGROUP_DEVICE, 0}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach)); errno != 0 {
		return wrap(fmt.Errorf("attach program: %w", errno))
	}
	return nil
}
