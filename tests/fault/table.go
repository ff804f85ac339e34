package fault

import (
	"maps"
	"sync"

	"golang.org/x/sys/unix"
)

// calls are those that change files, by number.
var calls = sync.OnceValue(func() map[int]form {
	all := map[int]form{
		unix.SYS_OPENAT: {"open", Open, "b0"}, unix.SYS_OPENAT2: {"open", Open, "O0"},
		unix.SYS_MKDIRAT: {"mkdir", Create, "a0"}, unix.SYS_MKNODAT: {"mknod", Create, "a0"}, unix.SYS_SYMLINKAT: {"symlink", Create, "a1"}, unix.SYS_LINKAT: {"link", Create, "a0a2"},
		unix.SYS_WRITE: {"write", Write, "f0"}, unix.SYS_PWRITE64: {"write", Write, "f0"}, unix.SYS_WRITEV: {"write", Write, "f0"}, unix.SYS_PWRITEV: {"write", Write, "f0"}, unix.SYS_PWRITEV2: {"write", Write, "f0"},
		unix.SYS_COPY_FILE_RANGE: {"write", Write, "f2"}, unix.SYS_SENDFILE: {"write", Write, "f0"}, unix.SYS_SPLICE: {"write", Write, "f2"},
		unix.SYS_READ: {"read", Read, "f0"}, unix.SYS_PREAD64: {"read", Read, "f0"}, unix.SYS_READV: {"read", Read, "f0"}, unix.SYS_PREADV: {"read", Read, "f0"},
		unix.SYS_FALLOCATE: {"allocate", Write, "f0"}, unix.SYS_FTRUNCATE: {"truncate", Delete, "f0"}, unix.SYS_TRUNCATE: {"truncate", Delete, "p0"},
		unix.SYS_RENAMEAT2: {"rename", Name, "a0a2"}, unix.SYS_RENAMEAT: {"rename", Name, "a0a2"},
		unix.SYS_UNLINKAT: {"delete", Delete, "a0"},
		unix.SYS_FSYNC:    {"sync", Sync, "f0"}, unix.SYS_FDATASYNC: {"sync", Sync, "f0"}, unix.SYS_SYNCFS: {"sync file system", Sync, "f0"}, unix.SYS_SYNC_FILE_RANGE: {"sync", Sync, "f0"},
		unix.SYS_FCHMOD: {"attribute", Attribute, "f0"}, unix.SYS_FCHMODAT: {"attribute", Attribute, "a0"}, unix.SYS_FCHOWN: {"attribute", Attribute, "f0"}, unix.SYS_FCHOWNAT: {"attribute", Attribute, "a0"},
		unix.SYS_UTIMENSAT: {"attribute", Attribute, "a0"}, unix.SYS_SETXATTR: {"attribute", Attribute, "p0"}, unix.SYS_LSETXATTR: {"attribute", Attribute, "p0"}, unix.SYS_FSETXATTR: {"attribute", Attribute, "f0"},
	}
	maps.Copy(all, older())
	return all
})
