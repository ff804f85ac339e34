// Package early starts and deletes containers before the Go runtime starts.
//
// All that "gantry-oci start" has to do for most containers is to say a byte to the init that waits, and to hear that its socket closes: ten system calls. The start of a Go program takes several times as long. On amd64, a program
// linked with -E gantry/oci/early.entry begins here. When its command line asks for a start, and the container's socket has the name Plain, which promises that nothing else is to be done, begin does it and ends the
// program. So it is with delete, by what the file End says. In every other case, and whenever anything is out of order, the program goes on as it otherwise would, and does the same, or says what is wrong.
package early

import (
	"os"
	"strconv"
)

// Names in a container's directory.
const (
	// Socket is where the init waits for its start.
	Socket = "start.sock"
	// Plain is a second name of the socket of a container that is complete and whose start is nothing but the go-ahead: no hooks are to be run, nobody is to be asked or told.
	Plain = "go.sock"
	// End is what AppendEnd has made of a container whose end is nothing but that of init and of its cgroup.
	End = "end"
)

// MaxEnd is how many bytes of it are read.
const MaxEnd = 4096

// AppendEnd appends what delete has to do: words that end with a zero byte, init's number, when it was started (field 22 of /proc/PID/stat), and the directories of its cgroup; an empty word is the last.
func AppendEnd(b []byte, pid int, birth uint64, cgroup []string) []byte {
	b = append(strconv.AppendInt(b, int64(pid), 10), 0)
	b = append(strconv.AppendUint(b, birth, 10), 0)
	for _, dir := range cgroup {
		b = append(append(b, dir...), 0)
	}
	return append(b, 0)
}

// sync is the descriptor of the connection to an init that has had its go-ahead and has something to say; -1 if there is none.
var sync int32 = -1

// Sync returns the connection to an init that has had its go-ahead, where what it has to say waits to be read; nil if there is none.
func Sync() *os.File {
	if sync < 0 {
		return nil
	}
	return os.NewFile(uintptr(sync), "sync")
}
