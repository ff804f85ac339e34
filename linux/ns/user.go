package ns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/errdefs"
	"gantry/linux/cred"
)

// initialUser is the inode of the user namespace that the machine was booted with (PROC_USER_INIT_INO).
const initialUser = 0xEFFFFFFD

// Privileged reports whether this process may make any mount and device for a child: it has the rights to in the machine's first user
// namespace.
var Privileged = sync.OnceValue(func() bool {
	own, err := cred.Self()
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_MKNOD | 1<<unix.CAP_CHOWN
	if err != nil || own.Permitted&need != need {
		return false
	}
	st, err := os.Stat("/proc/self/ns/user")
	return err == nil && st.Sys().(*syscall.Stat_t).Ino == initialUser
})

// Check reports an error if f is not a namespace of kind t.
func Check(f *os.File, t specs.LinuxNamespaceType) error {
	kind, err := ioctl(f, unix.NS_GET_NSTYPE)
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "%s is not a namespace", f.Name())
	}
	if uint64(kind) == Flag(t) {
		return nil
	}
	for _, other := range []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace,
	} {
		if Flag(other) == uint64(kind) {
			return errdefs.New(errdefs.InvalidParameter, "%s is a %s namespace, not a %s namespace", f.Name(), other, t)
		}
	}
	return errdefs.New(errdefs.InvalidParameter, "%s is not a %s namespace", f.Name(), t)
}

func ioctl(f *os.File, request uint) (int, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var inner error
	if err := c.Control(func(fd uintptr) { n, inner = unix.IoctlRetInt(int(fd), request) }); err != nil {
		return 0, err
	}
	return n, inner
}

// OwnedBy reports whether the namespace f belongs to the user namespace user or to one below it, so that whoever has joined that may
// join f.
func OwnedBy(f, user *os.File) (bool, error) {
	want, err := user.Stat()
	if err != nil {
		return false, err
	}
	n, err := ioctl(f, unix.NS_GET_USERNS)
	for {
		if errors.Is(err, unix.EPERM) { // it is not below this process's own
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("owner of namespace %s: %w", f.Name(), err)
		}
		owner := os.NewFile(uintptr(n), "user namespace")
		st, err2 := owner.Stat()
		if err2 == nil && os.SameFile(st, want) {
			owner.Close()
			return true, nil
		}
		n, err = ioctl(owner, unix.NS_GET_PARENT)
		owner.Close()
		if err2 != nil {
			return false, err2
		}
	}
}

// maxMap is how many lines of a mapping the kernel takes.
const maxMap = 340

// WriteMaps gives the user namespace that the process pid has been born in its mappings; without the right to write them itself, through
// newuidmap and newgidmap. denied reports that processes in it cannot set their supplementary groups.
func WriteMaps(pid int, uids, gids []specs.LinuxIDMapping) (denied bool, err error) {
	if len(uids) > maxMap || len(gids) > maxMap {
		return false, errdefs.New(errdefs.InvalidParameter, "user namespace: more than %d mappings", maxMap)
	}
	own, err := cred.Self()
	if err != nil {
		return false, fmt.Errorf("user namespace: %w", err)
	}
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	able := own.Permitted&need == need
	if able || single(uids, os.Geteuid()) {
		err = writeMap(pid, "uid_map", uids)
	} else {
		err = helper("newuidmap", pid, uids)
	}
	if err != nil {
		return false, err
	}
	switch {
	case able:
		return false, writeMap(pid, "gid_map", gids)
	case single(gids, os.Getegid()):
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/setgroups", pid), []byte("deny"), 0); err != nil {
			return false, fmt.Errorf("user namespace: %w", err)
		}
		return true, writeMap(pid, "gid_map", gids)
	}
	return false, helper("newgidmap", pid, gids)
}

// single reports whether the mapping is the one that every process may write: of its own number.
func single(m []specs.LinuxIDMapping, id int) bool {
	return len(m) == 1 && m[0].Size == 1 && m[0].HostID == uint32(id)
}

func writeMap(pid int, file string, m []specs.LinuxIDMapping) error {
	var b bytes.Buffer
	for _, l := range m {
		fmt.Fprintf(&b, "%d %d %d\n", l.ContainerID, l.HostID, l.Size)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, file), b.Bytes(), 0); err != nil {
		return fmt.Errorf("user namespace: write mapping %q: %w", strings.ReplaceAll(strings.TrimSpace(b.String()), "\n", ", "), err)
	}
	return nil
}

func helper(program string, pid int, m []specs.LinuxIDMapping) error {
	args := []string{strconv.Itoa(pid)}
	for _, l := range m {
		args = append(args, fmt.Sprint(l.ContainerID), fmt.Sprint(l.HostID), fmt.Sprint(l.Size))
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return errdefs.New(errdefs.NotImplemented, "user namespace: a mapping of more than one's own number needs %s (Debian: uidmap), which is not installed", program)
	}
	if err != nil {
		return errdefs.New(errdefs.Forbidden, "user namespace: %s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ReadMap reads a mapping of the user namespace of process pid; file is "uid_map" or "gid_map".
func ReadMap(pid int, file string) ([]specs.LinuxIDMapping, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return nil, err
	}
	var list []specs.LinuxIDMapping
	for line := range strings.Lines(string(data)) {
		var l specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &l.ContainerID, &l.HostID, &l.Size); err != nil {
			return nil, fmt.Errorf("read %s of process %d: %w", file, pid, err)
		}
		list = append(list, l)
	}
	return list, nil
}

// GroupsDenied reports whether processes in the user namespace of process pid cannot set their supplementary groups.
func GroupsDenied(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/setgroups", pid))
	return err == nil && strings.TrimSpace(string(data)) == "deny"
}

// HostID returns what the number id inside a user namespace with the mapping m is outside.
func HostID(m []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, l := range m {
		if id >= l.ContainerID && id-l.ContainerID < l.Size {
			return l.HostID + (id - l.ContainerID), true
		}
	}
	return 0, false
}
