//go:build !amd64

package clone

func interpreterAddress() uintptr { return 0 }

func interpreterCode() []byte { return nil }

// run has nothing to run at.
//
//go:nosplit
func run(uintptr, *step, int, *step, int, *[Registers]uintptr) { exit() }
