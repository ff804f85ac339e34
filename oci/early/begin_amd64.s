#include "textflag.h"

// The file's true beginning, when the linker is told so (-E).
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0-0
	// Calls from assembler to Go load the goroutine from below FS: there is none.
	LEAQ ·noThread+8(SB), SI
	MOVL $0x1002, DI // ARCH_SET_FS
	MOVL $158, AX // arch_prctl
	SYSCALL
	MOVQ SP, AX
	SUBQ $16, SP
	MOVQ AX, 0(SP)
	CALL ·begin(SB)
	ADDQ $16, SP
	JMP  gantry∕linux∕quick·entry(SB)
