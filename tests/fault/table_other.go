//go:build !amd64

package fault

// older are the calls that later architectures have no more.
func older() map[int]form { return nil }
