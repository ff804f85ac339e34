#include "textflag.h"

DATA one<>+0(SB)/8, $"GOMAXPRO"
DATA one<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL one<>(SB), RODATA, $16

// The file's true beginning, when the linker is told so (-E). It adds GOMAXPROCS=1 in front of the environment, by moving what lies below it on
// the stack (argc, argv, a null) down by two words: with one processor to schedule for the runtime starts no thread that finds nothing to do. And it
// has the runtime map its memory by ·mmap, as cgo does (runtime, cgo_mmap.go).
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
	LEAQ ·mmap(SB), AX
	MOVQ AX, _cgo_mmap(SB)
	JMP  _rt0_amd64_linux(SB)

// It is mmap(2) by C's conventions, and returns an errno as it is. The heap, which is what the runtime maps over a reservation in pieces of 4 MB, gets huge
// pages before its first byte is touched: the runtime and the packages that are initialized before main touch ninety small ones.
TEXT ·mmap(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ CX, R10
	MOVL $9, AX // mmap
	SYSCALL
	CMPQ AX, $-4095
	JCS  mapped
	NEGQ AX
	RET
mapped:
	TESTL $0x10, R10 // MAP_FIXED
	JEQ  done
	CMPL DX, $3 // PROT_READ|PROT_WRITE
	JNE  done
	CMPQ SI, $0x400000
	JCS  done
	MOVQ AX, DI
	MOVQ AX, R10
	MOVL $14, DX // MADV_HUGEPAGE
	MOVL $28, AX // madvise
	SYSCALL // what the kernel cannot do is left
	MOVQ R10, AX
done:
	RET
