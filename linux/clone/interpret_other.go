//go:build !amd64

package clone

func interpreterAddress() uintptr { return 0 }

func interpreterCode() []byte { return nil }

// begin has no interpreter to begin with.
func begin(*launch) uintptr { panic("clone: no interpreter in assembler") }
