package clone

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file has the system calls a script can be made of, each as a method. Paths given as strings are resolved in the child, at
// that step, against its root and working directory of the moment.

// cwd is the argument for "relative to the working directory".
var cwd = Arg{value: ^uintptr(99), kind: named, text: "cwd"} // AT_FDCWD, -100

// Write writes data, which must fit in one call.
func (s *Script) Write(file Arg, data string, options ...Option) {
	s.call("write", unix.SYS_WRITE, []Arg{file, s.str(data), Int(len(data))}, options...)
}

// Ready tells the parent that the child has come here, and waits until the parent says Go. A parent that went away ends the child.
func (s *Script) Ready() {
	sync := At(SyncRegister)
	sync.text = "sync"
	s.Write(sync, "R")
	s.awaitGo(sync)
}

// ReadyListen is Ready for a parent that will be gone: go-ahead and reports go over the first connection that listener, a listening
// seqpacket socket, gets. Signals that ask a process to end, which are blocked and which the first process of a pid namespace would
// ignore, end the child while it waits. With visible others may look into it between LookInto and LookAway.
func (s *Script) ReadyListen(listener Arg, visible bool) {
	s.listen = len(s.steps)
	sync := At(SyncRegister)
	sync.text = "sync"
	mark := s.Mark()
	set := place(s.room(), uint64(0))
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		*set |= 1 << (sig - 1)
	}
	signals := s.result("signalfd4", unix.SYS_SIGNALFD4, []Arg{Int(-1), pointer(set, "{HUP, INT, QUIT, TERM}"), Int(8), Flags(unix.SFD_CLOEXEC|unix.SFD_NONBLOCK, "CLOEXEC|NONBLOCK")})
	poll := place(s.room(), [2]unix.PollFd{{Events: unix.POLLIN}, {Events: unix.POLLIN}})
	s.store(&poll[0].Fd, "poll[0]", At(signals))
	s.store(&poll[1].Fd, "poll[1]", listener)
	s.Write(sync, "R")
	wait, called, goOn := s.Label(), s.Label(), s.Label()
	s.Place(wait)
	s.call("ppoll", unix.SYS_PPOLL, []Arg{pointer(poll, "poll"), Int(len(poll)), Int(0), Int(0), Int(0)})
	s.call("read", unix.SYS_READ, []Arg{At(signals), s.bytes(make([]byte, 128), "signal"), Int(128)}, Else(called, syscall.EAGAIN))
	s.call("exit_group", unix.SYS_EXIT_GROUP, []Arg{Int(128 + int(syscall.SIGTERM))})
	s.Place(called)
	s.add("accept4", unix.SYS_ACCEPT4, SyncRegister, []Arg{listener, Int(0), Int(0), Flags(unix.SOCK_CLOEXEC, "CLOEXEC")}, nil)
	if visible {
		s.lookedInto(sync, wait, goOn)
	} else {
		s.awaitGo(sync)
	}
	s.Place(goOn)
	s.Close(At(signals))
	s.Release(mark)
}

// lookedInto goes on at goOn when the connection has Go for it. One that asks to look into the child keeps it dumpable until it has looked
// away or is gone; the child goes on at wait then.
func (s *Script) lookedInto(sync Arg, wait, goOn Label) {
	gone := []syscall.Errno{syscall.EPIPE, syscall.ECONNRESET}
	word := place(s.room(), int64(0)) // of which the first byte is read
	asked := s.Label()
	s.call("read", unix.SYS_READ, []Arg{sync, pointer(word, "go"), Int(1)}, Want(1))
	s.call("refuse", opRefuse, []Arg{pointer(word, "go"), Flags(lookInto, "LOOK")}, Else(asked, syscall.EXDEV), Then(goOn))
	s.Place(asked)
	s.Prctl(unix.PR_SET_DUMPABLE, "SET_DUMPABLE", 1)
	s.call("sendto", unix.SYS_SENDTO, []Arg{sync, s.str("D"), Int(1), Flags(unix.MSG_NOSIGNAL, "NOSIGNAL"), Int(0), Int(0)}, Ignore(gone...))
	s.call("read", unix.SYS_READ, []Arg{sync, s.bytes(make([]byte, 1), "end"), Int(1)}, Ignore(gone...)) // or what it looks for has gone
	s.Undumpable()
	s.Close(sync)
	s.Jump(wait)
}

func (s *Script) awaitGo(sync Arg) {
	s.call("read", unix.SYS_READ, []Arg{sync, s.bytes(make([]byte, 1), "go"), Int(1)}, Want(1))
}

// Close closes a descriptor.
func (s *Script) Close(file Arg) { s.call("close", unix.SYS_CLOSE, []Arg{file}) }

// CloseRange closes the descriptors from first to last.
func (s *Script) CloseRange(first, last uint) {
	s.call("close_range", unix.SYS_CLOSE_RANGE, []Arg{Int(int(first)), Int(int(last)), Int(0)})
}

// CloseOthers closes every descriptor from first on but the socket to the parent and those in keep, and returns where the latter are
// now. It is for a child that is going to wait: what it holds open meanwhile others cannot be rid of.
func (s *Script) CloseOthers(first int, keep ...Arg) []Reg {
	const aside = 256 // above what the numbers below are moved to; the lowest free one is taken
	sync := At(SyncRegister)
	sync.text = "sync"
	keep = append([]Arg{sync}, keep...)
	moved := make([]Reg, len(keep))
	for i, k := range keep {
		moved[i] = s.DupFrom(k, first+aside)
	}
	for i, r := range moved {
		out := r
		if i == 0 {
			out = SyncRegister
		}
		s.add("dup3", unix.SYS_DUP3, out, []Arg{At(r), Int(first + i), Flags(unix.O_CLOEXEC, "CLOEXEC")}, nil)
	}
	s.call("close_range", unix.SYS_CLOSE_RANGE, []Arg{Int(first + len(keep)), Flags(1<<32-1, "max"), Int(0)})
	return moved[1:]
}

// CloseOnExecFrom marks every descriptor from first on to be closed by execve.
func (s *Script) CloseOnExecFrom(first int) {
	s.call("close_range", unix.SYS_CLOSE_RANGE, []Arg{Int(first), Flags(1<<32-1, "max"), Flags(unix.CLOSE_RANGE_CLOEXEC, "CLOEXEC")})
}

// Dup makes to, a number, the same open file as file; it stays open over execve.
func (s *Script) Dup(file Arg, to int) {
	s.call("dup3", unix.SYS_DUP3, []Arg{file, Int(to), Int(0)})
}

// DupFrom returns a duplicate of file, close-on-exec, numbered first or higher.
func (s *Script) DupFrom(file Arg, first int) Reg {
	return s.result("fcntl", unix.SYS_FCNTL, []Arg{file, Flags(unix.F_DUPFD_CLOEXEC, "DUPFD_CLOEXEC"), Int(first)})
}

// MoveSync gives the socket to the parent a number of first or higher, for scripts that put descriptors at numbers of their own.
func (s *Script) MoveSync(first int) {
	sync := At(SyncRegister)
	sync.text = "sync"
	s.add("fcntl", unix.SYS_FCNTL, SyncRegister, []Arg{sync, Flags(unix.F_DUPFD_CLOEXEC, "DUPFD_CLOEXEC"), Int(first)}, nil)
}

// Jump goes on at l.
func (s *Script) Jump(l Label) {
	s.call("getpid", unix.SYS_GETPID, nil, Then(l)) // the cheapest call that cannot fail
}

// Prctl is prctl(2); name shows its option.
func (s *Script) Prctl(option int, name string, arg uintptr, options ...Option) {
	s.call("prctl", unix.SYS_PRCTL, []Arg{Flags(uint64(option), name), Int(int(arg)), Int(0), Int(0), Int(0)}, options...)
}

// Undumpable keeps other processes, even of the same user, from tracing the child or opening what is under its /proc/PID, until it
// executes a program.
func (s *Script) Undumpable() { s.Prctl(unix.PR_SET_DUMPABLE, "SET_DUMPABLE", 0) }

// DieWithParent has the kernel kill the process when the thread that cloned it ends, or ends it now if the parent has gone.
func (s *Script) DieWithParent() {
	s.Prctl(unix.PR_SET_PDEATHSIG, "SET_PDEATHSIG", uintptr(unix.SIGKILL))
	sync := At(SyncRegister)
	sync.text = "sync"
	flags := Flags(unix.MSG_PEEK|unix.MSG_DONTWAIT, "PEEK|DONTWAIT")
	s.call("recvfrom", unix.SYS_RECVFROM, []Arg{sync, s.bytes(make([]byte, 1), "peek"), Int(1), flags, Int(0), Int(0)}, Ignore(syscall.EAGAIN), Want(1))
}

// NoNewPrivs makes every later execve grant nothing that the process does not have.
func (s *Script) NoNewPrivs() { s.Prctl(unix.PR_SET_NO_NEW_PRIVS, "SET_NO_NEW_PRIVS", 1) }

// Setns joins the namespace of descriptor ns; kind is its CLONE_NEW* flag (several for a pidfd).
func (s *Script) Setns(ns Arg, kind uint64, name string) {
	s.call("setns", unix.SYS_SETNS, []Arg{ns, Flags(kind, name)})
}

// Unshare makes new namespaces.
func (s *Script) Unshare(kind uint64, name string) {
	s.call("unshare", unix.SYS_UNSHARE, []Arg{Flags(kind, name)})
}

// NewSession makes the process the leader of a new session.
func (s *Script) NewSession() { s.call("setsid", unix.SYS_SETSID, nil) }

// NewKeyring gives the process a new, empty session keyring.
func (s *Script) NewKeyring() {
	s.call("keyctl", unix.SYS_KEYCTL, []Arg{Flags(unix.KEYCTL_JOIN_SESSION_KEYRING, "JOIN_SESSION_KEYRING"), Int(0)},
		Ignore(syscall.ENOSYS, syscall.EDQUOT, syscall.EPERM))
}

// LoopbackUp sets the interface lo of the present network namespace up.
func (s *Script) LoopbackUp() {
	ifreq := make([]byte, 40)
	copy(ifreq, "lo")
	ifreq[16] = unix.IFF_UP
	mark := s.Mark()
	sock := s.result("socket", unix.SYS_SOCKET, []Arg{Flags(unix.AF_INET, "INET"), Flags(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, "DGRAM"), Int(0)})
	s.call("ioctl", unix.SYS_IOCTL, []Arg{At(sock), Flags(unix.SIOCSIFFLAGS, "SIOCSIFFLAGS"), s.bytes(ifreq, "lo up")})
	s.Close(At(sock))
	s.Release(mark)
}

// Propagate changes the propagation of the mount at path and of all below it.
func (s *Script) Propagate(path string, flags uint64, name string) {
	s.call("mount", unix.SYS_MOUNT, []Arg{Int(0), s.str(path), Int(0), Flags(flags, name), Int(0)})
}

// NewFS makes a file system of the given type in the child's namespaces, with options as fsconfig takes them, and returns a detached
// mount with the attributes attr.
func (s *Script) NewFS(fsType, source string, data [][2]string, attr uint64) Reg {
	out := s.Reg()
	s.NewFSTo(out, fsType, source, data, attr)
	return out
}

// NewFSTo is NewFS with a given register for the result; the options say what happens when the file system is refused.
func (s *Script) NewFSTo(out Reg, fsType, source string, data [][2]string, attr uint64, options ...Option) {
	mark := s.Mark()
	ctx := s.result("fsopen", unix.SYS_FSOPEN, []Arg{s.str(fsType), Flags(unix.FSOPEN_CLOEXEC, "CLOEXEC")}, options...)
	if source != "" {
		data = append([][2]string{{"source", source}}, data...)
	}
	for _, kv := range data {
		if kv[1] == "" {
			s.call("fsconfig", unix.SYS_FSCONFIG, []Arg{At(ctx), Flags(unix.FSCONFIG_SET_FLAG, "SET_FLAG"), s.str(kv[0]), Int(0), Int(0)})
		} else {
			s.call("fsconfig", unix.SYS_FSCONFIG, []Arg{At(ctx), Flags(unix.FSCONFIG_SET_STRING, "SET_STRING"), s.str(kv[0]), s.str(kv[1]), Int(0)})
		}
	}
	s.call("fsconfig", unix.SYS_FSCONFIG, []Arg{At(ctx), Flags(unix.FSCONFIG_CMD_CREATE, "CREATE"), Int(0), Int(0), Int(0)}, options...)
	s.add("fsmount", unix.SYS_FSMOUNT, out, []Arg{At(ctx), Flags(unix.FSMOUNT_CLOEXEC, "CLOEXEC"), Flags(attr, fmt.Sprintf("%#x", attr))}, options)
	s.Close(At(ctx))
	s.Release(mark)
}

// MoveMount attaches the mount m at the directory or file that target is open at.
func (s *Script) MoveMount(m, target Arg, options ...Option) {
	s.call("move_mount", unix.SYS_MOVE_MOUNT, []Arg{m, s.str(""), target, s.str(""), Flags(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH, "EMPTY_PATHS")}, options...)
}

// MoveMountTo attaches the mount m at path, links in which are followed: for paths nobody else can have changed.
func (s *Script) MoveMountTo(m Arg, path string) {
	s.call("move_mount", unix.SYS_MOVE_MOUNT, []Arg{m, s.str(""), cwd, s.str(path), Flags(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS, "F_EMPTY_PATH")})
}

// CloneTree returns a detached copy of the mount that at/path lies on, from there downwards; an empty path is at itself.
func (s *Script) CloneTree(at Arg, path string, recursive bool, options ...Option) Reg {
	out := s.Reg()
	s.CloneTreeTo(out, at, path, recursive, options...)
	return out
}

// CloneTreeTo is CloneTree with a given register for the result.
func (s *Script) CloneTreeTo(out Reg, at Arg, path string, recursive bool, options ...Option) {
	flags, name := uint64(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), "CLONE"
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
		name = "CLONE|RECURSIVE"
	}
	s.add("open_tree", unix.SYS_OPEN_TREE, out, []Arg{at, s.str(path), Flags(flags, name)}, options)
}

// DupTo is DupFrom with a given register for the result.
func (s *Script) DupTo(out Reg, file Arg, options ...Option) {
	s.add("fcntl", unix.SYS_FCNTL, out, []Arg{file, Flags(unix.F_DUPFD_CLOEXEC, "DUPFD_CLOEXEC"), Int(3)}, options)
}

// SetMountAttr changes attributes and propagation of the mount that m is open at.
func (s *Script) SetMountAttr(m Arg, set, clear, propagation uint64, recursive bool, name string, options ...Option) {
	attr := place(s.room(), unix.MountAttr{Attr_set: set, Attr_clr: clear, Propagation: propagation})
	flags, flagName := uint64(unix.AT_EMPTY_PATH), "EMPTY_PATH"
	if recursive {
		flags |= unix.AT_RECURSIVE
		flagName = "EMPTY_PATH|RECURSIVE"
	}
	s.call("mount_setattr", unix.SYS_MOUNT_SETATTR, []Arg{m, s.str(""), Flags(flags, flagName), pointer(attr, name), Int(int(unsafe.Sizeof(*attr)))}, options...)
}

// Resolve says how Open walks a path.
type Resolve uint64

// Ways to walk. Magic links of procfs are never followed.
const (
	InRoot     Resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS                                                   // "at" is "/"
	Beneath    Resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV // below "at", same mount, no links
	InRootHard Resolve = InRoot | unix.RESOLVE_NO_SYMLINKS
)

func (r Resolve) String() string {
	switch r {
	case InRoot:
		return "IN_ROOT"
	case Beneath:
		return "BENEATH|NO_LINKS|NO_XDEV"
	case InRootHard:
		return "IN_ROOT|NO_LINKS"
	case BeneathAt:
		return "BENEATH|NO_XDEV"
	}
	return fmt.Sprintf("%#x", uint64(r))
}

// Open opens path relative to at.
func (s *Script) Open(at Arg, path string, flags uint64, flagsName string, how Resolve, options ...Option) Reg {
	out := s.Reg()
	s.OpenTo(out, at, path, flags, flagsName, how, options...)
	return out
}

// OpenTo is Open with a given register for the result.
func (s *Script) OpenTo(out Reg, at Arg, path string, flags uint64, flagsName string, how Resolve, options ...Option) {
	h := place(s.room(), unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: uint64(how)})
	s.add("openat2", unix.SYS_OPENAT2, out, []Arg{at, s.str(path), pointer(h, flagsName+" "+how.String()), Int(int(unsafe.Sizeof(*h)))}, options)
}

// OpenHost opens path with the ordinary walk: for paths of the host only.
func (s *Script) OpenHost(path string, flags uint64, flagsName string, options ...Option) Reg {
	return s.result("openat", unix.SYS_OPENAT, []Arg{cwd, s.str(path), Flags(flags|unix.O_CLOEXEC, flagsName), Int(0)}, options...)
}

// Mkdir makes the directory name in the directory at; one that is there already is left alone.
func (s *Script) Mkdir(at Arg, name string, mode int) {
	s.call("mkdirat", unix.SYS_MKDIRAT, []Arg{at, s.str(name), Arg{value: uintptr(mode), kind: octal}}, Ignore(syscall.EEXIST))
}

// Mkfile makes the empty file name in the directory at; one that is there already is left alone.
func (s *Script) Mkfile(at Arg, name string, mode int) {
	s.call("mknodat", unix.SYS_MKNODAT, []Arg{at, s.str(name), Arg{value: uintptr(unix.S_IFREG | mode), kind: octal}, Int(0)}, Ignore(syscall.EEXIST))
}

// Mknod makes the device name, of the type and permissions mode, in the directory at.
func (s *Script) Mknod(at Arg, name string, mode uint32, device uint64, options ...Option) {
	s.call("mknodat", unix.SYS_MKNODAT, []Arg{at, s.str(name), Arg{value: uintptr(mode), kind: octal}, Flags(device, fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device)))}, options...)
}

// Lchown gives what is called name in the directory at to a user and a group; a link itself.
func (s *Script) Lchown(at Arg, name string, uid, gid int) {
	s.call("fchownat", unix.SYS_FCHOWNAT, []Arg{at, s.str(name), Int(uid), Int(gid), Flags(unix.AT_SYMLINK_NOFOLLOW, "SYMLINK_NOFOLLOW")})
}

// Fchdir makes the directory of dir the working directory.
func (s *Script) Fchdir(dir Arg) { s.call("fchdir", unix.SYS_FCHDIR, []Arg{dir}) }

// Chdir changes the working directory.
func (s *Script) Chdir(path string) { s.call("chdir", unix.SYS_CHDIR, []Arg{s.str(path)}) }

// PivotRoot makes the mount at the working directory the root mount, with the old root mounted over it, and then takes that away.
func (s *Script) PivotRoot() {
	mark := s.Mark()
	old := s.result("openat", unix.SYS_OPENAT, []Arg{cwd, s.str("/"), Flags(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "PATH|DIRECTORY"), Int(0)})
	s.call("pivot_root", unix.SYS_PIVOT_ROOT, []Arg{s.str("."), s.str(".")})
	s.Fchdir(At(old))
	s.call("umount2", unix.SYS_UMOUNT2, []Arg{s.str("."), Flags(unix.MNT_DETACH, "DETACH")})
	s.Chdir("/")
	s.Close(At(old))
	s.Release(mark)
}

// Hostname sets the host name of the UTS namespace.
func (s *Script) Hostname(name string) {
	s.call("sethostname", unix.SYS_SETHOSTNAME, []Arg{s.str(name), Int(len(name))})
}

// Domainname sets the NIS domain name of the UTS namespace.
func (s *Script) Domainname(name string) {
	s.call("setdomainname", unix.SYS_SETDOMAINNAME, []Arg{s.str(name), Int(len(name))})
}

// ControllingTerminal makes tty the terminal of the session; steal takes it from another session.
func (s *Script) ControllingTerminal(tty Arg) {
	s.call("ioctl", unix.SYS_IOCTL, []Arg{tty, Flags(unix.TIOCSCTTY, "TIOCSCTTY"), Int(0)})
}

// Rlimit sets a resource limit.
func (s *Script) Rlimit(resource int, name string, soft, hard uint64) {
	limit := place(s.room(), unix.Rlimit{Cur: soft, Max: hard})
	s.call("prlimit64", unix.SYS_PRLIMIT64, []Arg{Int(0), Flags(uint64(resource), name), pointer(limit, fmt.Sprintf("{%d, %d}", soft, hard)), Int(0)})
}

// Umask sets the file mode creation mask.
func (s *Script) Umask(mask uint32) {
	s.call("umask", unix.SYS_UMASK, []Arg{Arg{value: uintptr(mask), kind: octal}})
}

// DropBounding takes a capability from the bounding set.
func (s *Script) DropBounding(capability int, name string) {
	s.call("prctl", unix.SYS_PRCTL, []Arg{Flags(unix.PR_CAPBSET_DROP, "CAPBSET_DROP"), Flags(uint64(capability), name), Int(0), Int(0), Int(0)})
}

// KeepCaps makes the permitted capabilities survive the change to another user.
func (s *Script) KeepCaps(keep bool) {
	v := uintptr(0)
	if keep {
		v = 1
	}
	s.Prctl(unix.PR_SET_KEEPCAPS, "SET_KEEPCAPS", v)
}

// Groups sets the supplementary groups.
func (s *Script) Groups(gids []uint32, options ...Option) {
	name := fmt.Sprint(gids)
	s.call("setgroups", unix.SYS_SETGROUPS, []Arg{Int(len(gids)), pointer(placeAll(s.room(), gids), name)}, options...)
}

// User sets real, effective and saved group and user.
func (s *Script) User(uid, gid uint32) {
	g, u := Int(int(gid)), Int(int(uid))
	s.call("setresgid", unix.SYS_SETRESGID, []Arg{g, g, g})
	s.call("setresuid", unix.SYS_SETRESUID, []Arg{u, u, u})
}

// CapSet sets the effective, permitted and inheritable capabilities.
func (s *Script) CapSet(effective, permitted, inheritable uint64) {
	head := place(s.room(), unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3})
	data := place(s.room(), [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	})
	s.call("capset", unix.SYS_CAPSET, []Arg{pointer(head, "v3"), pointer(data, fmt.Sprintf("eff=%#x perm=%#x inh=%#x", effective, permitted, inheritable))})
}

// RaiseAmbient adds a capability to the ambient set.
func (s *Script) RaiseAmbient(capability int, name string) {
	s.call("prctl", unix.SYS_PRCTL, []Arg{Flags(unix.PR_CAP_AMBIENT, "CAP_AMBIENT"), Flags(unix.PR_CAP_AMBIENT_RAISE, "RAISE"), Flags(uint64(capability), name), Int(0), Int(0)}, Ignore(syscall.EPERM))
}

// ClearAmbient empties the ambient set.
func (s *Script) ClearAmbient() {
	s.call("prctl", unix.SYS_PRCTL, []Arg{Flags(unix.PR_CAP_AMBIENT, "CAP_AMBIENT"), Flags(unix.PR_CAP_AMBIENT_CLEAR_ALL, "CLEAR_ALL"), Int(0), Int(0), Int(0)})
}

// Seccomp loads a filter, an array of struct sock_filter, with seccomp(2) flags.
func (s *Script) Seccomp(filter []byte, flags uint64) { s.seccomp(filter, flags, none) }

func (s *Script) seccomp(filter []byte, flags uint64, out Reg) {
	program := place(s.room(), struct { // sock_fprog of linux/filter.h
		n      uint16
		filter *byte
	}{uint16(len(filter) / 8), placeAll(s.room(), filter)})
	s.add("seccomp", unix.SYS_SECCOMP, out, []Arg{Flags(unix.SECCOMP_SET_MODE_FILTER, "SET_MODE_FILTER"), Flags(flags, fmt.Sprintf("%#x", flags)), pointer(program, fmt.Sprintf("filter of %d", len(filter)/8))}, nil)
}

// Personality sets the execution domain.
func (s *Script) Personality(domain uint64, name string) {
	s.call("personality", unix.SYS_PERSONALITY, []Arg{Flags(domain, name)})
}

// IOPriority sets class and priority of the process's input and output.
func (s *Script) IOPriority(class, priority int) {
	s.call("ioprio_set", unix.SYS_IOPRIO_SET, []Arg{Int(1), Int(0), Flags(uint64(class<<13|priority), fmt.Sprintf("class %d priority %d", class, priority))})
}

// UnblockSignals empties the signal mask, with which the child was born full. Handlers are all the default.
func (s *Script) UnblockSignals() {
	s.call("rt_sigprocmask", unix.SYS_RT_SIGPROCMASK, []Arg{Flags(unix.SIG_SETMASK, "SETMASK"), pointer(place(s.room(), uint64(0)), "{}"), Int(0), Int(8)})
}

// Exec executes the first of paths that can be. When none can, the report has EACCES if one was there but may not be executed, else
// ENOENT.
func (s *Script) Exec(paths, argv, env []string) {
	args, vars := s.vector(argv, "argv"), s.vector(env, "env")
	for _, p := range paths {
		var options []Option
		if len(paths) > 1 {
			options = append(options, remembered(syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES))
		}
		s.call("execve", unix.SYS_EXECVE, []Arg{s.str(p), args, vars}, options...)
	}
	s.call("fail", opFail, nil)
}

// CanExec goes on if one of paths is a file that may be executed, and else reports as Exec does; EISDIR if there is one path and it is a
// directory.
func (s *Script) CanExec(paths []string) {
	found := s.Label()
	for _, p := range paths {
		const exists, executable = 0, 1 // F_OK, X_OK
		next := s.Label()
		not := Else(next, syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES)
		s.call("faccessat", unix.SYS_FACCESSAT, []Arg{cwd, s.str(p), Flags(executable, "X_OK")}, not, worstOf)
		s.call("faccessat", unix.SYS_FACCESSAT, []Arg{cwd, s.str(p + "/."), Flags(exists, "F_OK")}, Else(found, syscall.ENOTDIR))
		if len(paths) == 1 {
			s.call("fail", opFail, []Arg{Flags(uint64(syscall.EISDIR), "EISDIR")})
		}
		s.Place(next)
	}
	s.call("fail", opFail, nil)
	s.Place(found)
}

// Cwd is "relative to the working directory" where a step takes a directory.
func Cwd() Arg { return cwd }

// Fork goes on in a new process, a sibling of this one, in new namespaces of the kinds given and in those that this one has chosen for
// its children; this one ends. Start returns when it has happened. It is for what takes two processes: to be born in a pid namespace that
// only a joined user namespace gives the right to.
func (s *Script) Fork(namespaces uint64, name string) {
	args := place(s.room(), cloneArgs{flags: unix.CLONE_PARENT | namespaces})
	s.forks = true
	s.call("clone3", opFork, []Arg{pointer(args, "PARENT"+name)})
	s.Ready()
}

// store puts a value, mostly the result of an earlier step, where p points to.
func (s *Script) store(p *int32, name string, value Arg) {
	s.call("store", opStore, []Arg{pointer(p, name), value})
}

// SendFile passes a descriptor to the parent, which takes it with NextFile.
func (s *Script) SendFile(r Reg) {
	rights := unix.UnixRights(-1)
	control := placeAll(s.room(), rights)
	iov := place(s.room(), unix.Iovec{Base: place(s.room(), byte('C'))})
	iov.SetLen(1)
	message := place(s.room(), unix.Msghdr{Iov: iov, Control: control})
	message.SetIovlen(1)
	message.SetControllen(len(rights))
	s.store((*int32)(unsafe.Add(unsafe.Pointer(control), unix.CmsgLen(0))), "message", At(r))
	sync := At(SyncRegister)
	sync.text = "sync"
	s.call("sendmsg", unix.SYS_SENDMSG, []Arg{sync, pointer(message, "message"), Int(0)})
}

// RefuseProc fails with EXDEV if at lies on a procfs.
func (s *Script) RefuseProc(at Arg) { s.statfs(at, unix.PROC_SUPER_MAGIC, "PROC") }

func (s *Script) statfs(at Arg, magic int64, name string) {
	st := place(s.room(), unix.Statfs_t{})
	s.call("fstatfs", unix.SYS_FSTATFS, []Arg{at, pointer(st, "statfs")})
	s.call("refuse", opRefuse, []Arg{pointer(&st.Type, "statfs.type"), Flags(uint64(magic), name)})
}

// RequireNull goes on at otherwise unless at is the null device.
func (s *Script) RequireNull(at Arg, otherwise Label) {
	st := place(s.room(), unix.Stat_t{})
	s.call("fstat", unix.SYS_FSTAT, []Arg{at, pointer(st, "stat")})
	s.call("require", opRequire, []Arg{pointer(&st.Rdev, "stat.rdev"), Flags(unix.Mkdev(1, 3), "1:3")}, Else(otherwise, syscall.EXDEV))
}

// MakeRoot makes the working directory the root directory.
func (s *Script) MakeRoot() {
	s.call("chroot", unix.SYS_CHROOT, []Arg{s.str(".")})
	s.Chdir("/")
}

// UnmountHost takes what is mounted at path away, if anything is.
func (s *Script) UnmountHost(path string) {
	s.call("umount2", unix.SYS_UMOUNT2, []Arg{s.str(path), Flags(unix.MNT_DETACH, "DETACH")}, Ignore(syscall.EINVAL, syscall.ENOENT, syscall.EPERM))
}

// MakeLink makes the symbolic link name to target in the directory at; what is there already is left alone.
func (s *Script) MakeLink(at Arg, name, target string) {
	s.call("symlinkat", unix.SYS_SYMLINKAT, []Arg{s.str(target), at, s.str(name)}, Ignore(syscall.EEXIST))
}

// OpenTerminal makes a pseudo terminal on the devpts that devpts is the root of.
func (s *Script) OpenTerminal(devpts Arg) (master, slave Reg) {
	master = s.Open(devpts, "ptmx", unix.O_RDWR|unix.O_NOCTTY, "RDWR|NOCTTY", InRootHard)
	s.call("ioctl", unix.SYS_IOCTL, []Arg{At(master), Flags(unix.TIOCSPTLCK, "TIOCSPTLCK"), pointer(place(s.room(), int32(0)), "0")})
	slave = s.result("ioctl", unix.SYS_IOCTL, []Arg{At(master), Flags(unix.TIOCGPTPEER, "TIOCGPTPEER"), Flags(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, "RDWR|NOCTTY")})
	return master, slave
}

// TerminalSize sets the size of a terminal.
func (s *Script) TerminalSize(tty Arg, rows, columns uint16) {
	size := place(s.room(), unix.Winsize{Row: rows, Col: columns})
	s.call("ioctl", unix.SYS_IOCTL, []Arg{tty, Flags(unix.TIOCSWINSZ, "TIOCSWINSZ"), pointer(size, fmt.Sprintf("%dx%d", columns, rows))})
}

// Fchown gives an open file to a user and a group of the present user namespace.
func (s *Script) Fchown(file Arg, uid, gid int, options ...Option) {
	s.call("fchown", unix.SYS_FCHOWN, []Arg{file, Int(uid), Int(gid)}, options...)
}

// MountHere makes a file system and mounts it on the working directory, with mount(2) and its options as text.
func (s *Script) MountHere(fsType, source, options string, flags uint64) {
	s.call("mount", unix.SYS_MOUNT, []Arg{s.str(source), s.str("."), s.str(fsType), Flags(flags, fmt.Sprintf("%#x", flags)), s.str(options)})
}
