#include "textflag.h"

DATA one<>+0(SB)/8, $"GOMAXPRO"
DATA one<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL one<>(SB), RODATA, $16

// The file's true beginning, when the linker is told so (-E). It adds GOMAXPROCS=1 in front of the environment, by moving what lies below it on
// the stack (argc, argv, a null) down by two words: with one processor to schedule for the runtime starts no thread that finds nothing to do.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ (SP), CX
	ADDQ $2, CX
	MOVQ SP, SI
	SUBQ $16, SP // still a multiple of 16
	MOVQ SP, DI
	CLD
	REP; MOVSQ
	LEAQ one<>(SB), AX
	MOVQ AX, (DI) // twice, for want of anything else: the second is a duplicate, which counts for nothing
	MOVQ AX, 8(DI)
	// Text and data, mapped at once instead of by eighty faults. Kernels before 5.14 refuse that.
	LEAQ runtime·text(SB), DI
	ANDQ $~0xfff, DI
	LEAQ runtime·noptrdata(SB), R8
	ANDQ $~0xfff, R8
	MOVQ R8, SI
	SUBQ DI, SI
	MOVL $22, DX // MADV_POPULATE_READ
	MOVL $28, AX // madvise
	SYSCALL
	MOVQ R8, DI
	LEAQ runtime·end+0xfff(SB), SI
	ANDQ $~0xfff, SI
	SUBQ DI, SI
	MOVL $23, DX // MADV_POPULATE_WRITE
	MOVL $28, AX // madvise
	SYSCALL
	JMP  gantry∕internal∕hugeheap·entry(SB)
