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
	JMP  gantry∕internal∕hugeheap·entry(SB)
