package wire

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// StartTime returns when a process was started, in clock ticks since boot: with the number it names a process for ever.
func StartTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may itself hold both; the start time is field 22.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, fmt.Errorf("start time of process %d: no name in its stat", pid)
	}
	fields := bytes.Fields(b[i+1:])
	const index = 22 - 3
	if len(fields) <= index {
		return 0, fmt.Errorf("start time of process %d: %d fields", pid, len(fields))
	}
	return strconv.ParseUint(string(fields[index]), 10, 64)
}
