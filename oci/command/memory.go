package command

import (
	"fmt"
	"os"
	"syscall"

	"gantry/linux/clone"
	"gantry/linux/fd"
	"gantry/linux/ns"
)

// protect keeps this program's file from containers: until a container's process has executed its own program, /proc/PID/exe there is
// this one, and must not lead to the file on the host (CVE-2019-5736). Where processes cannot let go of it, this program executes itself
// again from a sealed copy in memory.
func protect() error {
	if ns.Privileged() && clone.Disguise() == nil {
		return nil
	}
	return fromMemory()
}

func fromMemory() error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	sealed := fd.IsSealed(self)
	self.Close()
	if sealed {
		return nil
	}
	f, err := fd.SealedCopy("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := syscall.Exec(fd.Path(f), os.Args, os.Environ()); err != nil {
		return fmt.Errorf("execute from memory: %w", err)
	}
	return nil
}
