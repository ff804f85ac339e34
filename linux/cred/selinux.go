package cred

import "os"

// SELinux reports whether this kernel runs with SELinux, with a policy loaded.
func SELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}
