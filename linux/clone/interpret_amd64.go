package clone

// run runs the steps first and then steps, by the interpreter at code. It does not return.
//
//go:noescape
func run(code uintptr, first *step, nfirst int, steps *step, n int, regs *[Registers]uintptr)

func interpreterAddress() uintptr

func interpreterCode() []byte { return untilMark(interpreterAddress()) }
