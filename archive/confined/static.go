//go:build !cgo

package confined

// Possible says whether this program can be executed where there are no shared libraries. One with cgo, as the race detector needs it, unpacks in its own process;
// the daemon does not start when it was built that way.
const Possible = true
