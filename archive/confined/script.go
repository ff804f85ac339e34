package confined

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"gantry/linux/clone"
	"gantry/linux/cred"
	"gantry/linux/mount"
	"gantry/linux/seccomp"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// namespaces are those that a child is born in. One of networks is not among them: it costs more than all the others, and no system call that makes or
// uses a socket is allowed.
const namespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS

// The child's descriptors after standard input (the stream), output (its answer) and error.
const (
	lockFD = 3 + iota
	imageFD
	firstLower
)

// capabilities are what the child keeps: owners, whatever the modes of folders say, modes and times of what it has given away, set-ID bits, device numbers, file
// capabilities, and attributes in trusted.* (overlayfs's marks). The last is CAP_SYS_ADMIN, whose other powers are all in system calls that are not allowed.
func capabilities() []string {
	return []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP", "CAP_SYS_ADMIN"}
}

// Numbers of sched_setattr(2) and ioprio_set(2).
const (
	schedBatch = 3
	ioIdle     = 3
)

// script confines the child and executes this program in it. files are its descriptors, from 0 on.
func script(j Job, folder *os.File, files []*os.File) (*clone.Script, error) {
	told, err := json.Marshal(order{Image: j.Image != nil, Lower: len(j.Lower), Limits: j.Limits, Other: j.other})
	if err != nil {
		return nil, err
	}
	filter, err := seccomp.Compile(profile())
	if err != nil {
		return nil, err
	}
	self, err := cred.Self()
	if err != nil {
		return nil, err
	}
	keep, _ := cred.Mask(capabilities())
	keep &= self.Permitted

	s := &clone.Script{}
	s.For("take the descriptors")
	var open syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &open); err != nil {
		return nil, os.NewSyscallError("getrlimit", err)
	}
	above := len(files) // all targets and all sources, lest one is overwritten before it is copied; numbers, since there may be more layers beneath than a script has registers
	for _, f := range files {
		above = max(above, clone.Number(f)+1)
	}
	var layer clone.Reg
	if folder != nil {
		above = max(above, clone.Number(folder)+1)
	}
	if uint64(above+len(files)+2) > open.Max { // fcntl would call it an invalid argument
		return nil, fmt.Errorf("numbers for %d descriptors: %w", len(files), syscall.EMFILE)
	}
	if open.Cur < open.Max { // the parent may be at its limit, which holds for the child's numbers, too
		s.Rlimit(syscall.RLIMIT_NOFILE, "RLIMIT_NOFILE", open.Max, open.Max)
	}
	if folder != nil {
		layer = s.DupFrom(clone.File(clone.FD{Name: "layer", File: folder}), above+len(files))
	}
	s.MoveSync(above + len(files))
	for i, f := range files {
		s.Dup(clone.File(clone.FD{Name: f.Name(), File: f}), above+i)
	}
	for i := range files {
		s.Dup(clone.Int(above+i), i)
	}
	s.CloseOnExecFrom(len(files))

	s.For("make a root file system")
	const attr = uint64(mount.NoDev | mount.NoSuid | mount.NoExec)
	s.Propagate("/", syscall.MS_REC|syscall.MS_PRIVATE, "REC|PRIVATE")
	root := s.NewFS("tmpfs", "layer", [][2]string{{"size", "64k"}, {"nr_inodes", "8"}, {"mode", "555"}}, attr)
	s.Mkdir(clone.At(root), "layer", 0o700)
	s.Mkdir(clone.At(root), "proc", 0o555)
	proc := s.NewFS("proc", "proc", [][2]string{{"subset", "pid"}}, attr|uint64(mount.ReadOnly))
	s.MoveMountTo(clone.At(root), "/proc") // a folder that is always there
	s.Fchdir(clone.At(root))
	if folder != nil {
		s.MoveMount(clone.At(layer), clone.At(s.Open(clone.At(root), "layer", syscall.O_DIRECTORY, "DIRECTORY", clone.InRootHard)))
	}
	s.MoveMount(clone.At(proc), clone.At(s.Open(clone.At(root), "proc", syscall.O_DIRECTORY, "DIRECTORY", clone.InRootHard)))
	s.SetMountAttr(clone.At(root), uint64(mount.ReadOnly), 0, 0, false, "RDONLY")
	s.PivotRoot()

	if j.other.Idle {
		s.For("step back")
		s.Scheduler(clone.SchedAttr{Policy: schedBatch, Nice: 19}, "BATCH nice 19")
		s.IOPriority(ioIdle, 0)
	}

	s.For("give up rights")
	limits := j.Limits.OrDefault()
	largest := limits.Size
	if j.Image != nil {
		largest = 0 // it holds all files
	}
	for _, r := range []struct {
		name  string
		value uint64
	}{{"RLIMIT_CORE", 0}, {"RLIMIT_NOFILE", min(4096, open.Max)}, {"RLIMIT_FSIZE", limit(largest)}, {"RLIMIT_DATA", limit(limits.Memory)}} {
		number, err := cred.Rlimit(r.name)
		if err != nil {
			return nil, err
		}
		s.Rlimit(number, r.name, r.value, r.value)
	}
	for n := 0; n <= self.Last; n++ {
		if keep&(1<<n) == 0 && self.Bounding&(1<<n) != 0 {
			s.DropBounding(n, cred.CapabilityName(n))
		}
	}
	s.ClearAmbient()
	s.Groups(nil)
	s.Umask(0o077)
	s.NoNewPrivs()
	s.CapSet(keep, keep, 0)
	s.UnblockSignals()
	s.Seccomp(filter, 0)

	s.For("execute")
	s.Exec([]string{"/proc/self/exe"}, []string{name, option, string(told)}, environment())
	return s, nil
}

// environment is what the child's Go runtime is told. One process for each layer is parallel enough.
func environment() []string { return []string{"GOMAXPROCS=2", "GOTRACEBACK=single"} }

// profile lists the system calls of the Go runtime and of unpacking. Whatever else there is does not exist for the child.
func profile() *specs.LinuxSeccomp {
	none := uint(syscall.ENOSYS)
	threads := uint64(syscall.CLONE_THREAD)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &none,
		Architectures: []specs.Arch{},
		Syscalls: []specs.LinuxSyscall{
			{Action: specs.ActAllow, Names: []string{ // the runtime
				"arch_prctl", "brk", "clock_gettime", "clock_nanosleep", "close", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "execve", "exit", "exit_group",
				"fcntl", "futex", "getpid", "getrandom", "gettid", "getuid", "geteuid", "getgid", "getegid", "madvise", "mincore", "mmap", "mprotect", "munmap", "nanosleep", "pipe2", "prlimit64", "rseq",
				"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address", "sigaltstack", "tgkill", "uname",
			}},
			{Action: specs.ActAllow, Names: []string{"clone"}, Args: []specs.LinuxSeccompArg{{Index: 0, Value: threads, ValueTwo: threads, Op: specs.OpMaskedEqual}}},
			{Action: specs.ActAllow, Names: []string{ // reading the stream, and files in the layers
				"copy_file_range", "fstat", "fstatfs", "getdents64", "lseek", "newfstatat", "openat", "openat2", "pread64", "read", "readlink", "readlinkat", "sendfile", "splice", "statx",
				"fgetxattr", "flistxattr", "getxattr", "listxattr",
			}},
			{Action: specs.ActAllow, Names: []string{ // making files in the layer
				"chmod", "fallocate", "fchmod", "fchmodat", "fchmodat2", "fchownat", "fsetxattr", "fsync", "ftruncate", "linkat", "mkdirat", "mknodat", "pwrite64", "setxattr", "symlinkat", "unlinkat", "utimensat", "write",
			}},
		},
	}
}
