#include "go_asm.h"
#include "textflag.h"

// The interpreter of scripts. It refers to nothing but its arguments and is therefore good at any address: a child that lets go of the
// program's file runs a copy. Registers that system calls preserve:
//
//	R12 the steps   R13 how many   R14 the scripts' registers   R15 the step's number   BX the step
//
// and on the stack: 0 a report, 16 and 24 the steps that come after these and how many, 32 what is added to the number in a report, 40 the
// remembered errno.

// func begin(l *launch) uintptr
//
// Between the clone and the interpreter the child touches nothing of its parent's but code.
TEXT ·begin(SB), NOSPLIT, $0-16
	MOVQ l+0(FP), BX
	LEAQ launch_args(BX), DI
	MOVL $cloneArgs__size, SI
	MOVL $435, AX // clone3
	SYSCALL
	TESTQ AX, AX
	JEQ  child
	MOVQ AX, ret+8(FP)
	RET

child:
	MOVQ launch_others(BX), R12
	MOVQ launch_nothers(BX), R13
others:
	TESTQ R13, R13
	JEQ  run
	MOVL fdRange_first(R12), DI
	MOVL fdRange_last(R12), SI
	XORL DX, DX
	MOVL $436, AX // close_range
	SYSCALL
	ADDQ $fdRange__size, R12
	DECQ R13
	JMP  others

run:
	MOVQ launch_code(BX), AX
	MOVQ launch_first(BX), R12
	MOVQ launch_nfirst(BX), R13
	MOVQ launch_steps(BX), CX
	MOVQ launch_nsteps(BX), DX
	LEAQ launch_regs(BX), R14
	SUBQ $56, SP
	MOVQ CX, 16(SP)
	MOVQ DX, 24(SP)
	MOVQ $const_ofFirst, CX
	MOVQ CX, 32(SP)
	JMP  AX

// func interpreterAddress() uintptr
TEXT ·interpreterAddress(SB), NOSPLIT, $0-8
	LEAQ ·interpretSteps(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·interpretSteps(SB), NOSPLIT|NOFRAME, $0-0
	XORL R15, R15
	MOVQ $2, 40(SP) // ENOENT
	MOVQ $const_retries, 48(SP)

next:
	CMPQ R15, R13
	JLT  step
	// The end of these steps: there may be others.
	MOVQ 16(SP), R12
	MOVQ 24(SP), R13
	MOVQ $0, 24(SP)
	MOVQ $0, 32(SP)
	XORL R15, R15
	TESTQ R13, R13
	JNE  next

exit:
	MOVL $231, AX // exit_group(1)
	MOVL $1, DI
	SYSCALL
	UNDEF // a seccomp filter forbids it: end by a signal

step:
	IMUL3Q $step__size, R15, BX
	ADDQ R12, BX
	MOVBLZX step_regs(BX), CX
	MOVQ step_args+0(BX), DI
	MOVQ step_args+8(BX), SI
	MOVQ step_args+16(BX), DX
	MOVQ step_args+24(BX), R10
	MOVQ step_args+32(BX), R8
	MOVQ step_args+40(BX), R9
	TESTL CX, CX
	JEQ  loaded
	BTL  $0, CX
	JCC  a1
	ANDL $const_lastRegister, DI
	MOVQ (R14)(DI*8), DI
a1:
	BTL  $1, CX
	JCC  a2
	ANDL $const_lastRegister, SI
	MOVQ (R14)(SI*8), SI
a2:
	BTL  $2, CX
	JCC  a3
	ANDL $const_lastRegister, DX
	MOVQ (R14)(DX*8), DX
a3:
	BTL  $3, CX
	JCC  a4
	ANDL $const_lastRegister, R10
	MOVQ (R14)(R10*8), R10
a4:
	BTL  $4, CX
	JCC  a5
	ANDL $const_lastRegister, R8
	MOVQ (R14)(R8*8), R8
a5:
	BTL  $5, CX
	JCC  loaded
	ANDL $const_lastRegister, R9
	MOVQ (R14)(R9*8), R9

loaded:
	MOVQ step_nr(BX), AX
	CMPQ AX, $const_opFail
	JCC  special
	SYSCALL
	CMPQ AX, $-4095
	JCS  ok
	NEGQ AX
	JMP  failed

special:
	JEQ  fail
	CMPQ AX, $const_opFork
	JEQ  fork
	CMPQ AX, $const_opStore
	JEQ  store
	CMPQ AX, $const_opRefuse
	JEQ  refuse
	CMPQ SI, (DI) // opRequire
	JEQ  zero
	JMP  differs
refuse:
	CMPQ SI, (DI)
	JNE  zero
differs:
	MOVL $18, AX // EXDEV
	JMP  failed
store:
	MOVL SI, (DI)
zero:
	XORL AX, AX
	JMP  ok
fail:
	MOVQ DI, AX
	TESTQ AX, AX
	JNE  failed
	MOVQ 40(SP), AX
	JMP  failed
fork:
	MOVL $435, AX // clone3
	MOVL $cloneArgs__size, SI
	SYSCALL
	CMPQ AX, $-4095
	JCC  nofork
	TESTQ AX, AX
	JEQ  ok // the child goes on
	MOVQ $0, 0(SP)
	MOVL AX, 8(SP) // the parent learns its number
	MOVL $1, AX
	MOVQ (const_lastRegister*8)(R14), DI
	MOVQ SP, SI
	MOVL $12, DX
	SYSCALL
	JMP  exit
nofork:
	NEGQ AX
	JMP  failed

ok:
	CMPQ AX, step_want(BX)
	JCS  exit
	MOVWLSX step_out(BX), CX
	TESTL CX, CX
	JLT  unkept
	ANDL $const_lastRegister, CX
	MOVQ AX, (R14)(CX*8)
unkept:
	MOVL step_onOK(BX), CX
	JMP  goon

failed:
	CMPQ AX, $4 // EINTR
	JNE  final
	DECQ 48(SP)
	JGE  next
final:
	MOVQ AX, CX
	SHRQ $6, CX
	ANDL $1, CX
	MOVQ step_ignore(BX)(CX*8), DX
	BTQ  AX, DX
	JCC  report
	CMPB step_remember(BX), $0
	JEQ  ignored
	CMPQ AX, $13 // EACCES
	JNE  ignored
	MOVQ AX, 40(SP)
ignored:
	MOVL step_onIgnore(BX), CX
goon:
	INCQ R15
	TESTL CX, CX
	JEQ  next
	MOVLQZX CX, R15
	JMP  next

report:
	MOVQ R15, CX
	ORQ  32(SP), CX
	MOVL CX, 0(SP)
	MOVL AX, 4(SP)
	MOVL $1, AX
	MOVQ (const_lastRegister*8)(R14), DI
	MOVQ SP, SI
	MOVL $8, DX
	SYSCALL
	JMP  exit
	BYTE $0x0f; BYTE $0x0b; BYTE $0x47; BYTE $0x61; BYTE $0x6e; BYTE $0x74; BYTE $0x72; BYTE $0x79 // endMark
