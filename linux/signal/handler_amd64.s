#include "textflag.h"

// The handler of a signal: it writes the signal's number, a byte, to the descriptor. It runs on any thread at any moment, so it uses nothing
// of the Go runtime; the registers that it changes are put back by sigreturn. If the pipe is full, a signal is lost.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0-0
	SUBQ $16, SP
	MOVB DI, (SP)
	MOVL ·target(SB), DI
	MOVQ SP, SI
	MOVL $1, DX
	MOVL $1, AX // write
	SYSCALL
	ADDQ $16, SP
	RET

TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0-0
	MOVL $15, AX // rt_sigreturn
	SYSCALL
	INT  $3

TEXT ·handlerAddress(SB), NOSPLIT, $0-8
	LEAQ ·handler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·restorerAddress(SB), NOSPLIT, $0-8
	LEAQ ·restorer(SB), AX
	MOVQ AX, ret+0(FP)
	RET
