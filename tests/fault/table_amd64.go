package fault

import "golang.org/x/sys/unix"

// older are the calls that later architectures have no more.
func older() map[int]form {
	return map[int]form{
		unix.SYS_OPEN: {"open", Open, "o0"}, unix.SYS_CREAT: {"create", Create, "p0"}, unix.SYS_MKDIR: {"mkdir", Create, "p0"}, unix.SYS_MKNOD: {"mknod", Create, "p0"},
		unix.SYS_SYMLINK: {"symlink", Create, "p1"}, unix.SYS_LINK: {"link", Create, "p0p1"}, unix.SYS_RENAME: {"rename", Name, "p0p1"}, unix.SYS_UNLINK: {"delete", Delete, "p0"},
		unix.SYS_RMDIR: {"delete", Delete, "p0"}, unix.SYS_CHMOD: {"attribute", Attribute, "p0"}, unix.SYS_CHOWN: {"attribute", Attribute, "p0"}, unix.SYS_LCHOWN: {"attribute", Attribute, "p0"},
	}
}
