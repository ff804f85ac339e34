// Package early starts containers before the Go runtime does.
//
// All that "gantry-oci start" has to do for most containers is to say a byte to the init that waits, and to hear that its socket closes: ten system calls. The start of a Go program takes several times as long. On amd64, a program
// linked with -E gantry/oci/early.entry begins here. When its command line asks for a start, and the container's socket has the name Plain, which promises that nothing else is to be done, begin does it and ends the
// program. In every other case, and whenever anything is out of order, the program goes on as it otherwise would, and does the same, or says what is wrong.
package early

import "os"

// Names in a container's directory.
const (
	// Socket is where the init waits for its start.
	Socket = "start.sock"
	// Plain is a second name of the socket of a container that is complete and whose start is nothing but the go-ahead: no hooks are to be run, nobody is to be asked or told.
	Plain = "go.sock"
)

// sync is the descriptor of the connection to an init that has had its go-ahead and has something to say; -1 if there is none.
var sync int32 = -1

// Sync returns the connection to an init that has had its go-ahead, where what it has to say waits to be read; nil if there is none.
func Sync() *os.File {
	if sync < 0 {
		return nil
	}
	return os.NewFile(uintptr(sync), "sync")
}
