#include "textflag.h"

// The file's true beginning, when the linker is told so (-E). The runtime maps its memory by ·mmap from now on, which it takes for cgo's (runtime, cgo_mmap.go).
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0-0
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
