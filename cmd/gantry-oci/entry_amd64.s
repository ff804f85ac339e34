#include "textflag.h"

// The file's true beginning, when the linker is told so (-E main.entry): what oci/command's fromMemory does, before the Go runtime has started,
// so that it starts once and not twice. It is only a short cut: whatever does not work here is left to fromMemory, which
// looks whether the program runs from a sealed file, makes it so or ends it.
//
// It touches no memory but its arguments, no stack, and keeps in registers that system calls preserve: BX the stack as the kernel laid it out,
// R12 the program's file, R13 the copy.

DATA exe<>+0(SB)/8, $"/proc/se"
DATA exe<>+8(SB)/8, $"lf/exe\x00\x00"
GLOBL exe<>(SB), RODATA, $16
DATA name<>+0(SB)/8, $"gantry-o"
DATA name<>+8(SB)/8, $"ci\x00\x00\x00\x00\x00\x00"
GLOBL name<>(SB), RODATA, $16

// func entry()
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ SP, BX
	LEAQ 16(BX), DI // argv[1]; below it argc and argv[0]

	// Only for the commands that make processes. An option's value may read like one of them, which costs a copy.
next:
	MOVQ (DI), SI
	ADDQ $8, DI
	TESTQ SI, SI
	JZ   start
	CMPL (SI), $0x006e7572 // "run\0"
	JEQ  copy
	CMPL (SI), $0x63657865 // "exec"
	JNE  create
	CMPB 4(SI), $0
	JEQ  copy
	JMP  next
create:
	CMPL (SI), $0x61657263 // "crea"
	JNE  restore
	CMPL 3(SI), $0x00657461 // "ate\0"
	JEQ  copy
	JMP  next
restore:
	CMPL (SI), $0x74736572 // "rest"
	JNE  next
	CMPL 4(SI), $0x0065726f // "ore\0"
	JNE  next

copy:
	MOVQ $-1, R13
	MOVL $257, AX // openat(AT_FDCWD, "/proc/self/exe", O_RDONLY|O_CLOEXEC)
	MOVQ $-100, DI
	LEAQ exe<>(SB), SI
	MOVL $0x80000, DX
	XORL R10, R10
	SYSCALL
	MOVQ AX, R12
	TESTQ AX, AX
	JLT  start
	MOVL $72, AX // fcntl(F_GET_SEALS)
	MOVQ R12, DI
	MOVL $1034, SI
	SYSCALL
	TESTQ AX, AX
	JLT  memory // not a memory file
	ANDL $15, AX
	CMPL AX, $15
	JEQ  close // the copy itself

memory:
	MOVL $319, AX // memfd_create(MFD_CLOEXEC|MFD_ALLOW_SEALING|MFD_EXEC)
	LEAQ name<>(SB), DI
	MOVL $0x13, SI
	SYSCALL
	CMPQ AX, $-22 // EINVAL: before Linux 6.3 without MFD_EXEC
	JNE  made
	MOVL $319, AX
	LEAQ name<>(SB), DI
	MOVL $3, SI
	SYSCALL
made:
	TESTQ AX, AX
	JLT  close
	MOVQ AX, R13
more:
	MOVL $40, AX // sendfile(copy, program, NULL, 1 GiB)
	MOVQ R13, DI
	MOVQ R12, SI
	XORL DX, DX
	MOVL $0x40000000, R10
	SYSCALL
	TESTQ AX, AX
	JGT  more
	JNE  close
	MOVL $72, AX // fcntl(F_ADD_SEALS, all four)
	MOVQ R13, DI
	MOVL $1033, SI
	MOVL $15, DX
	SYSCALL
	TESTQ AX, AX
	JNE  close
	MOVL $322, AX // execveat(copy, "", argv, envp, AT_EMPTY_PATH)
	MOVQ R13, DI
	LEAQ exe<>+14(SB), SI
	LEAQ 8(BX), DX
	MOVQ (BX), R10
	LEAQ 16(BX)(R10*8), R10
	MOVL $0x1000, R8
	SYSCALL

close:
	MOVL $3, AX
	MOVQ R12, DI
	SYSCALL
	TESTQ R13, R13
	JLT  start
	MOVL $3, AX
	MOVQ R13, DI
	SYSCALL

start:
	JMP  _rt0_amd64_linux(SB)
