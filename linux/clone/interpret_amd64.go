package clone

// begin clones, and returns what clone3(2) does: the child's number or a negative errno. The child has a stack of its own, and runs l by the interpreter at l.code.
//
//go:noescape
func begin(l *launch) uintptr

func interpreterAddress() uintptr

func interpreterCode() []byte { return untilMark(interpreterAddress()) }
