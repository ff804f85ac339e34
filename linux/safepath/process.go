package safepath

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ProcessRoot opens the root directory of a process as a handle (O_PATH), with the mounts that the process sees (proc_pid_root(5)).
func ProcessRoot(pid int) (*os.File, error) {
	return os.OpenFile("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}
