package cred

import (
	"os"
	"strings"
)

// AppArmor reports whether this kernel runs with AppArmor.
func AppArmor() bool {
	data, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(data), "Y")
}

// AppArmorFile returns the file of a task's folder in procfs that takes the profile of its next program. Its old name is shared with
// other security modules, and only the first of them listens.
func AppArmorFile() string {
	const name = "attr/apparmor/exec" // Linux 5.8
	if _, err := os.Lstat("/proc/thread-self/" + name); err == nil {
		return name
	}
	return "attr/exec"
}

// SELinux reports whether this kernel runs with SELinux, with a policy loaded.
func SELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}
