// Package initproc is the child's side of starting a container process. It turns an OCI runtime specification, and what the parent
// has prepared for it, into the script of system calls that package clone runs between clone and execve.
//
// The parent does whatever ordinary Go can do: it makes detached mounts, fills /dev, opens cgroups, compiles seccomp. The script
// has what must happen inside: in the new namespaces, and as the process that the container's first program will be.
package initproc

import (
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/clone"
	"gantry/linux/cred"
)

// Kernel flags that package syscall has under the same names.
const (
	oPath      = 0x200000
	oDirectory = syscall.O_DIRECTORY
	attrRDONLY = 1 // MOUNT_ATTR_RDONLY
)

// Namespace is one to join, or to make.
type Namespace struct {
	Kind uint64 // its CLONE_NEW* flag
	Name string // as the specification has it
	FD   clone.FD
}

// Mount is a mount to put in place, in order.
type Mount struct {
	Destination string
	FD          clone.FD // detached mount with its attributes set, or no file: FSType is made in the child's namespaces
	FSType      string
	Source      string
	Data        [][2]string
	Attr        uint64 // mount attributes for FSType
	File        bool   // it is a file, not a directory
	Late        bool   // becomes read-only after all else is done
	There       bool   // the mount point exists
}

// Masked is a path to hide.
type Masked struct {
	Path string
	Dir  bool // it probably is a directory
}

// Rlimit is a resource limit.
type Rlimit struct {
	Resource   int
	Name       string
	Soft, Hard uint64
}

// Console is where the script finds the terminal to bind to /dev/console.
type Console struct {
	At   clone.FD
	Name string // relative to At; empty: At is a detached mount of it
}

// Process is how the program runs: the part that a container's init and the processes that join it later have in common.
type Process struct {
	Args, Env     []string
	Paths         []string // candidates for execve, in order
	Cwd           string
	User          specs.User
	Stdio         [3]clone.FD
	Terminal      bool // Stdio[0] is the slave of a pseudo terminal, to be the controlling one
	Bounding      uint64
	Effective     uint64
	Permitted     uint64
	Inheritable   uint64
	Ambient       uint64
	Own           uint64 // the parent's permitted capabilities
	LastCap       int    // highest capability of the kernel
	NoNewPrivs    bool
	Seccomp       []byte
	SeccompFlags  uint64
	Rlimits       []Rlimit
	OOMScoreAdj   *int
	IOPriority    *[2]int // class, priority
	ExecLabel     *Label
	Preserve      int        // descriptors after 2 that stay open
	CgroupFiles   []clone.FD // "0" written to each joins a cgroup
	AwaitCgroup   bool       // stop until the parent has had the process moved to its cgroup
	DieWithParent bool
	NewKeyring    bool
}

// Label is what a security module has to be told before execve.
type Label struct{ File, Value string }

// Init is what a container's first process needs.
type Init struct {
	Process
	Join                 []Namespace // in the order to join
	NewCgroup            bool        // make a cgroup namespace
	Loopback             bool        // a new network namespace: set lo up
	Hostname, Domainname string
	Root                 clone.FD // detached mount
	ReadOnly             bool     // of the root
	Propagation          uint64   // of the root mount, 0 for none
	PropagationName      string
	Mounts               []Mount
	Console              *Console
	Sysctl               [][2]string // key, value; sorted
	Null                 clone.FD    // detached bind of /dev/null
	Empty                clone.FD    // detached, empty, read-only tmpfs
	Masked               []Masked
	ReadOnlyPaths        []string
	HooksBefore          bool // stop for hooks before the root is changed
	HooksStart           bool // stop for hooks just before execve
	Personality          uint64
	Listener             *clone.FD // take the go-ahead from a connection to it
	NoPivot              bool      // change the root directory without pivot_root
}

type builder struct {
	*clone.Script
	late map[int]clone.Reg // mounts made in the child
}

// Script returns the script of a container's first process.
func (in *Init) Script() *clone.Script {
	b := &builder{Script: &clone.Script{}, late: map[int]clone.Reg{}}
	b.begin(&in.Process)
	for _, n := range in.Join {
		b.For("join " + n.Name + " namespace")
		b.Setns(clone.File(n.FD), n.Kind, "NEW"+strings.ToUpper(n.Name))
	}
	if in.NewCgroup {
		b.For("make cgroup namespace") // after joining the cgroup: it becomes the namespace's root
		b.Unshare(syscall.CLONE_NEWCGROUP, "NEWCGROUP")
	}
	b.For("new session")
	b.NewSession()
	if in.NewKeyring {
		b.NewKeyring()
	}
	if in.Loopback {
		b.For("set interface lo up")
		b.LoopbackUp()
	}
	if in.Hostname != "" {
		b.For("set host name")
		b.Hostname(in.Hostname)
	}
	if in.Domainname != "" {
		b.For("set domain name")
		b.Domainname(in.Domainname)
	}
	label := b.openLabel(in.ExecLabel)
	b.For("leave the host's mounts")
	b.Propagate("/", syscall.MS_REC|syscall.MS_PRIVATE, "REC|PRIVATE")
	proc := b.lateMounts(in)
	if in.HooksBefore {
		b.For("wait for hooks")
		b.Ready()
	}
	b.For("enter the root file system")
	if in.NoPivot {
		b.ChangeRoot(clone.File(in.Root))
	} else {
		b.PivotRoot(clone.File(in.Root))
	}
	for i := range in.Mounts {
		b.attach(&in.Mounts[i], i)
	}
	b.console(in.Console)
	for _, kv := range in.Sysctl {
		b.For("set sysctl " + kv[0])
		mark := b.Mark()
		f := b.Open(clone.At(proc), "sys/"+sysctlPath(kv[0]), syscall.O_WRONLY, "WRONLY", clone.Beneath)
		b.Write(clone.At(f), kv[1])
		b.Close(clone.At(f))
		b.Release(mark)
	}
	for _, p := range in.ReadOnlyPaths {
		b.readOnly(p)
	}
	for _, m := range in.Masked {
		b.mask(m, clone.File(in.Null), clone.File(in.Empty))
	}
	for i := range in.Mounts {
		if m := &in.Mounts[i]; m.Late {
			b.For("make " + m.Destination + " read-only")
			b.SetMountAttr(clone.File(m.FD), attrRDONLY, 0, 0, false, "+RDONLY")
		}
	}
	b.cwd(in.Cwd)
	if in.ReadOnly {
		b.For("make the root read-only")
		b.SetMountAttr(clone.File(in.Root), attrRDONLY, 0, 0, false, "+RDONLY")
	}
	if in.Propagation != 0 {
		b.For("set the root's propagation")
		b.Propagate("/", in.Propagation, in.PropagationName)
	}
	if in.Personality != 0 {
		b.For("set personality")
		b.Script.Personality(in.Personality, fmt.Sprintf("%#x", in.Personality))
	}
	b.stdio(&in.Process)
	if in.Listener != nil {
		// Callers of a runtime's create expect it to fail for a missing program, not start.
		b.For("look for the program")
		b.CanExec(in.Paths)
	}
	b.For("wait for start")
	if in.Listener != nil {
		b.ReadyListen(*in.Listener)
	} else {
		b.Ready()
	}
	if in.HooksStart {
		b.For("wait for hooks")
		b.Ready()
	}
	b.finish(&in.Process, label)
	return b.Script
}

// Exec is what a process that joins a running container needs.
type Exec struct {
	Process
	Target    clone.FD // pidfd of a process in the container
	Join      uint64   // CLONE_NEW* flags of the namespaces to join, without the pid namespace, which the child is born in
	JoinNames string
}

// Script returns the script of a process that joins a container.
func (in *Exec) Script() *clone.Script {
	b := &builder{Script: &clone.Script{}}
	b.begin(&in.Process)
	label := b.openLabel(in.ExecLabel)
	if in.Join != 0 {
		b.For("join namespaces")
		b.Setns(clone.File(in.Target), in.Join, in.JoinNames)
	}
	b.For("new session")
	b.NewSession()
	if in.NewKeyring {
		b.NewKeyring()
	}
	b.stdio(&in.Process)
	b.finish(&in.Process, label)
	return b.Script
}

// begin has what comes first: nothing of the container may be able to look into this process, which still has all of the host's
// rights, and what it allocates counts as the container's.
func (b *builder) begin(p *Process) {
	b.For("begin")
	b.Undumpable()
	if p.OOMScoreAdj != nil {
		b.For("set OOM score adjustment")
		mark := b.Mark()
		f := b.OpenHost("/proc/self/oom_score_adj", syscall.O_WRONLY, "WRONLY")
		b.Write(clone.At(f), fmt.Sprint(*p.OOMScoreAdj))
		b.Close(clone.At(f))
		b.Release(mark)
	}
	for _, f := range p.CgroupFiles {
		b.For("join cgroup " + f.Name)
		b.Write(clone.File(f), "0")
	}
	if p.AwaitCgroup {
		b.For("wait to be moved to the cgroup")
		b.Ready()
	}
}

// openLabel opens the file of the security module while the host's procfs is there (CVE-2019-16884: the container's may be forged).
func (b *builder) openLabel(l *Label) clone.Reg {
	if l == nil {
		return -1
	}
	b.For("open security label")
	return b.OpenHost("/proc/thread-self/"+l.File, syscall.O_WRONLY, "WRONLY")
}

// lateMounts makes the file systems that show the namespace they are made in, while the host's are still visible (a user namespace
// may only mount what it sees already), and returns the procfs.
func (b *builder) lateMounts(in *Init) clone.Reg {
	proc := clone.Reg(-1)
	for i := range in.Mounts {
		m := &in.Mounts[i]
		if m.FSType == "" {
			continue
		}
		b.For("mount " + m.FSType + " for " + m.Destination)
		b.late[i] = b.NewFS(m.FSType, m.Source, m.Data, m.Attr)
		if m.FSType == "proc" {
			proc = b.late[i]
		}
	}
	if proc < 0 && len(in.Sysctl) > 0 {
		b.For("mount proc for sysctls")
		proc = b.NewFS("proc", "proc", nil, 0)
	}
	return proc
}

func (b *builder) attach(m *Mount, i int) {
	b.For("mount " + m.Destination)
	mark := b.Mark()
	// procfs and sysfs must be where they say: through a link of the image, what writes to /proc/self/attr would write elsewhere.
	how := clone.InRoot
	if m.FSType == "proc" || m.FSType == "sysfs" {
		how = clone.InRootHard
	}
	var t clone.Reg
	if m.There {
		t = b.Open(clone.Cwd(), m.Destination, oPath, "PATH", how)
	} else {
		t = b.target(m.Destination, m.File, how)
	}
	what := clone.File(m.FD)
	if r, ok := b.late[i]; ok {
		what = clone.At(r)
	}
	b.MoveMount(what, clone.At(t))
	b.Close(clone.At(t))
	b.Release(mark)
}

// target opens dst as a handle; whatever of it is missing is made, the last as a file if file says so.
func (b *builder) target(dst string, file bool, how clone.Resolve) clone.Reg {
	out := b.Reg()
	done := b.Label()
	dst = path.Clean("/" + dst)
	const dirFlags = oPath | oDirectory
	b.OpenTo(out, clone.Cwd(), dst, oPath, "PATH", how, clone.Ignore(syscall.ENOENT), clone.Then(done))
	if dst == "/" {
		b.Place(done)
		return out
	}
	mark := b.Mark()
	at, next := b.Reg(), b.Reg()
	b.OpenTo(at, clone.Cwd(), "/", dirFlags, "PATH|DIRECTORY", how)
	parts := strings.Split(dst[1:], "/")
	for i, part := range parts[:len(parts)-1] {
		have := b.Label()
		b.OpenTo(next, clone.Cwd(), "/"+strings.Join(parts[:i+1], "/"), dirFlags, "PATH|DIRECTORY", how, clone.Ignore(syscall.ENOENT), clone.Then(have))
		b.Mkdir(clone.At(at), part, 0o755)
		b.OpenTo(next, clone.At(at), part, dirFlags, "PATH|DIRECTORY", clone.InRootHard)
		b.Place(have)
		b.Close(clone.At(at))
		at, next = next, at
	}
	last := parts[len(parts)-1]
	if file {
		b.Mkfile(clone.At(at), last, 0o644)
	} else {
		b.Mkdir(clone.At(at), last, 0o755)
	}
	b.OpenTo(out, clone.At(at), last, oPath, "PATH", clone.InRootHard)
	b.Close(clone.At(at))
	b.Place(done)
	b.Release(mark)
	return out
}

func (b *builder) console(c *Console) {
	if c == nil {
		return
	}
	b.For("bind the terminal to /dev/console")
	mark := b.Mark()
	t := b.target("/dev/console", true, clone.InRootHard)
	what := clone.File(c.At)
	if c.Name != "" {
		what = clone.At(b.CloneTree(what, c.Name, false))
	}
	b.MoveMount(what, clone.At(t))
	b.Close(clone.At(t))
	b.Release(mark)
}

// sysctlPath turns "net.ipv4.ip_forward" into "net/ipv4/ip_forward"; in a name with a slash first, dots and slashes change places.
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(key)
}

func (b *builder) readOnly(p string) {
	b.For("make " + p + " read-only")
	mark := b.Mark()
	skip := b.Label()
	t := b.Open(clone.Cwd(), p, oPath, "PATH", clone.InRoot, clone.Else(skip, syscall.ENOENT, syscall.ENOTDIR))
	m := b.CloneTree(clone.At(t), "", true)
	b.SetMountAttr(clone.At(m), attrRDONLY, 0, 0, true, "+RDONLY")
	b.MoveMount(clone.At(m), clone.At(t))
	b.Close(clone.At(m))
	b.Close(clone.At(t))
	b.Place(skip)
	b.Release(mark)
}

// mask hides a path: a file behind /dev/null, a directory behind an empty one. Which it is shows when the first is refused.
func (b *builder) mask(m Masked, null, empty clone.Arg) {
	b.For("mask " + m.Path)
	mark := b.Mark()
	skip, other, done := b.Label(), b.Label(), b.Label()
	t := b.Open(clone.Cwd(), m.Path, oPath, "PATH", clone.InRoot, clone.Else(skip, syscall.ENOENT, syscall.ENOTDIR))
	first, second := null, empty
	if m.Dir {
		first, second = empty, null
	}
	c := b.Reg()
	b.copyOf(c, first)
	b.MoveMount(clone.At(c), clone.At(t), clone.Else(other, syscall.ENOTDIR, syscall.EINVAL), clone.Then(done))
	b.Place(other)
	b.Close(clone.At(c))
	b.copyOf(c, second)
	b.MoveMount(clone.At(c), clone.At(t))
	b.Place(done)
	b.Close(clone.At(c))
	b.Close(clone.At(t))
	b.Place(skip)
	b.Release(mark)
}

// copyOf puts a fresh copy of the mount m in out; m itself while it is attached nowhere yet, of which older kernels (before Linux
// 6.15) make no copy.
func (b *builder) copyOf(out clone.Reg, m clone.Arg) {
	have := b.Label()
	b.CloneTreeTo(out, m, "", false, clone.Ignore(syscall.EINVAL), clone.Then(have))
	b.DupTo(out, m)
	b.Place(have)
}

// cwd makes the working directory if it is missing, as the specification's users expect of an image's.
func (b *builder) cwd(dir string) {
	if dir == "" || path.Clean(dir) == "/" {
		return
	}
	b.For("make working directory " + dir)
	mark := b.Mark()
	t := b.target(dir, false, clone.InRoot)
	b.Close(clone.At(t))
	b.Release(mark)
}

func (b *builder) stdio(p *Process) {
	b.For("set up standard input and output")
	for i, f := range p.Stdio {
		b.Dup(clone.File(f), i)
	}
	if p.Terminal {
		b.ControllingTerminal(clone.Int(0))
	}
}

// finish gives up every right that the program is not to have, in the one order that works, and executes it.
func (b *builder) finish(p *Process, label clone.Reg) {
	for _, r := range p.Rlimits {
		b.For("set " + r.Name)
		b.Rlimit(r.Resource, r.Name, r.Soft, r.Hard)
	}
	if p.IOPriority != nil {
		b.For("set I/O priority")
		b.Script.IOPriority(p.IOPriority[0], p.IOPriority[1])
	}
	b.For("drop capabilities")
	for c := 0; c <= p.LastCap; c++ {
		if p.Bounding&(1<<c) == 0 {
			b.DropBounding(c, cred.CapabilityName(c))
		}
	}
	b.user(p)
	if label >= 0 {
		b.For("set security label " + p.ExecLabel.Value)
		b.Write(clone.At(label), p.ExecLabel.Value)
	}
	b.For("close descriptors")
	b.CloseOnExecFrom(3 + p.Preserve)
	b.UnblockSignals()
	// Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before that is gone, but after all else that it might forbid.
	if p.Seccomp != nil && !p.NoNewPrivs {
		b.For("load seccomp filter")
		if p.User.UID != 0 {
			b.CapSet(p.Own, p.Own, 0) // the change of user emptied the effective set
		}
		b.Script.Seccomp(p.Seccomp, p.SeccompFlags)
	}
	b.For("set capabilities")
	b.CapSet(p.Effective, p.Permitted, p.Inheritable)
	for c := 0; c <= p.LastCap; c++ {
		if p.Ambient&(1<<c) != 0 {
			b.RaiseAmbient(c, cred.CapabilityName(c))
		}
	}
	if p.NoNewPrivs {
		b.For("forbid new privileges")
		b.Script.NoNewPrivs()
		if p.Seccomp != nil {
			b.For("load seccomp filter")
			b.Script.Seccomp(p.Seccomp, p.SeccompFlags)
		}
	}
	if p.DieWithParent {
		b.For("die with the parent") // so late because a change of user undoes it
		b.DieWithParent()
	}
	b.For("execute")
	b.Script.Exec(p.Paths, p.Args, p.Env)
}

// user changes to the process's directory and user: in this order, as root may enter what the user may not, unless root may not
// either (NFS) and the user may. The directory is opened by a walk that follows no magic link: one to a descriptor of the host's
// would lead out of the root (CVE-2024-21626).
func (b *builder) user(p *Process) {
	change := func() {
		b.For("change user")
		b.KeepCaps(true)
		b.Groups(p.User.AdditionalGids)
		b.Script.User(p.User.UID, p.User.GID)
		b.KeepCaps(false)
		b.Undumpable() // what the change does to that is for fs.suid_dumpable to say
		umask := uint32(0o022)
		if p.User.Umask != nil {
			umask = *p.User.Umask
		}
		b.Umask(umask)
	}
	const flags, name = oPath | oDirectory, "PATH|DIRECTORY"
	mark := b.Mark()
	asUser, done := b.Label(), b.Label()
	dir := b.Reg()
	b.For("change to working directory " + p.Cwd)
	b.OpenTo(dir, clone.Cwd(), p.Cwd, flags, name, clone.InRoot, clone.Else(asUser, syscall.EACCES))
	b.Fchdir(clone.At(dir))
	change()
	b.Jump(done)
	b.Place(asUser)
	change()
	b.For("change to working directory " + p.Cwd)
	b.OpenTo(dir, clone.Cwd(), p.Cwd, flags, name, clone.InRoot)
	b.Fchdir(clone.At(dir))
	b.Place(done)
	b.Release(mark)
}

// Hook is a program of the host's that runs in the container's namespaces.
type Hook struct {
	Path          string
	Args, Env     []string
	Stdin, Stderr clone.FD
	Target        clone.FD // pidfd of the container's init
	Join          uint64   // CLONE_NEW* flags
}

// Script returns the script of a hook.
func (h *Hook) Script() *clone.Script {
	b := &builder{Script: &clone.Script{}}
	b.For("join namespaces")
	if h.Join != 0 {
		b.Setns(clone.File(h.Target), h.Join, "the container's")
	}
	b.For("set up standard input and output")
	b.Dup(clone.File(h.Stdin), 0)
	b.Dup(clone.File(h.Stderr), 1)
	b.Dup(clone.File(h.Stderr), 2)
	b.CloseOnExecFrom(3)
	b.UnblockSignals()
	b.For("execute")
	b.Script.Exec([]string{h.Path}, h.Args, h.Env)
	return b.Script
}
