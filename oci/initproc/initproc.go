// Package initproc is the child's side of starting a container process. It turns an OCI runtime specification, and what the parent
// has prepared for it, into the script of system calls that package clone runs between clone and execve.
//
// The parent does whatever ordinary Go can do: it makes detached mounts, fills /dev, opens cgroups, compiles seccomp. The script
// has what must happen inside: in the new namespaces, and as the process that the container's first program will be.
package initproc

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/linux/clone"
	"gantry/linux/cred"
	"gantry/linux/landlock"
)

// Kernel flags that package syscall has under the same names.
const (
	oPath      = 0x200000
	oDirectory = syscall.O_DIRECTORY
	attrRDONLY = 1 // MOUNT_ATTR_RDONLY
	newTime    = 0x80
)

// Namespace is one to join, or to make.
type Namespace struct {
	Kind uint64 // its CLONE_NEW* flag
	Name string // as the specification has it
	FD   clone.FD
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
	Made bool   // the script opens the terminal, on the devpts among its mounts, and passes its master to the parent
	Size *specs.Box
}

// Process is how the program runs: the part that a container's init and the processes that join it later have in common.
type Process struct {
	Args, Env     []string
	Paths         []string // candidates for execve, in order
	Cwd           string
	User          specs.User
	Stdio         [3]clone.FD
	NullStdio     [3]bool // Stdio[i] is /dev/null, and is to be the container's own if it has one
	Terminal      bool    // Stdio[0] is the slave of a pseudo terminal, to be the controlling one
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
	SendListener  bool // the parent has no right to take the filter's listener
	AsksExec      bool // the filter has its listener asked about the execve
	Rlimits       []Rlimit
	OOMScoreAdj   *int
	IOPriority    *[2]int // class, priority
	Scheduler     *Scheduler
	MemoryPolicy  *MemoryPolicy
	Personality   *Personality
	FirstCPUs     []byte // mask of processors to run on before anything else; nil: where the parent does
	CPUs          []byte // mask of processors to run on; nil: all there are, less those that the cgroup has not
	AppArmor      *Label
	SELinux       *Label
	Landlock      *landlock.Restriction
	Preserve      int        // descriptors after 2 that stay open
	CgroupFiles   []clone.FD // "0" written to each joins a cgroup
	AwaitCgroup   bool       // stop until the parent has had the process moved to its cgroup
	DieWithParent bool
	NewKeyring    bool
	InUser        bool // it is in a user namespace of the container's, as the first user of which it is to be before all else
	Open          bool // the parent has no rights over an undumpable child, and has to look into this one for a time
}

// Label is what a security module has to be told before execve.
type Label struct{ File, Value string }

// Init is what a container's first process needs.
type Init struct {
	Process
	Join                 []Namespace // in the order to join
	Fork                 uint64      // with ForkNames: the namespaces to make after these have been joined, in a further process
	ForkNames            string
	Forks                bool
	Mapped               bool   // a new user namespace: wait for the parent to write its mappings
	Time                 string // offsets of a new time namespace, as its file has them
	NewTime              bool
	NewCgroup            bool // make a cgroup namespace
	Loopback             bool // a new network namespace: set lo up
	Hostname, Domainname string
	Root                 clone.FD // detached mount, or no file: made of what is at RootPath
	RootPath             string
	RootChanges          []Change
	RootPlace            string // where it is attached while hooks run, or for good
	Aside                string // directory of the host's, not its root, that may be mounted on for a time; empty: there is none
	HostMounts           bool   // there is no mount namespace: all is mounted where the host sees it, and stays
	ReadOnly             bool   // of the root
	NoPivot              bool   // move the root mount over the host's, which stays below: for a host that runs from its first root file system
	Propagation          uint64 // of the root mount, 0 for none
	PropagationName      string
	Mounts               []Mount
	InOrder              bool // make those anew that the parent made, so that the kernel lists all of them in their order
	Nodes                []Node
	Links                [][2]string // symbolic links in the root's own /dev
	Console              *Console
	Sysctl               [][2]string // key, value; sorted
	Null                 clone.FD    // detached bind of /dev/null; no file: made here
	Empty                clone.FD    // detached, empty, read-only tmpfs; no file: made here
	Masked               []Masked
	ReadOnlyPaths        []string
	HooksBefore          bool      // stop for hooks before the root is changed
	HooksStart           bool      // stop for hooks just before execve
	Listener             *clone.FD // take the go-ahead from a connection to it
}

type builder struct {
	*clone.Script
	root   clone.Arg
	kept   map[int]clone.Arg // mounts that are still wanted after they have been attached, by their number
	proc   clone.Reg         // the container's own procfs
	devpts clone.Reg         // the container's own devpts
	tty    clone.Reg         // slave of a terminal made here

	apart    clone.Reg // a directory where mounts are attached to be copied
	hostProc clone.Reg // handle of the host's procfs, for labels
}

func newBuilder() *builder {
	return &builder{Script: &clone.Script{}, kept: map[int]clone.Arg{}, proc: -1, devpts: -1, tty: -1, apart: -1}
}

// Script returns the script of a container's first process.
func (in *Init) Script() *clone.Script {
	b := newBuilder()
	b.begin(&in.Process)
	for _, n := range in.Join {
		b.For("join " + n.Name + " namespace")
		b.Setns(clone.File(n.FD), n.Kind, "NEW"+strings.ToUpper(n.Name))
	}
	if in.Forks {
		b.For("make namespaces")
		b.Fork(in.Fork, in.ForkNames)
	}
	b.awaitCgroup(&in.Process)
	b.users(in)
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
	labels := b.openLabels(&in.Process)
	b.For("leave the host's mounts")
	switch {
	case in.HostMounts:
	case in.Open: // copies of the host's mounts are made here: they may want to know of what is mounted there
		b.Propagate("/", syscall.MS_REC|syscall.MS_SLAVE, "REC|SLAVE")
	default:
		b.Propagate("/", syscall.MS_REC|syscall.MS_PRIVATE, "REC|PRIVATE")
	}
	b.enterRoot(in)
	for i := range in.Mounts {
		b.attach(&in.Mounts[i], i, in.InOrder && !in.HostMounts)
	}
	b.nodes(in)
	if b.proc < 0 && len(in.Sysctl) > 0 {
		b.For("mount proc for sysctls")
		b.proc = b.NewFS("proc", "proc", nil, 0)
	}
	b.console(in)
	null, empty := b.covers(in)
	if in.HooksBefore {
		b.For("wait for hooks")
		b.Ready()
	}
	b.For("change the root directory")
	b.Fchdir(b.root)
	switch {
	case in.HostMounts:
		b.MakeRoot()
	case in.NoPivot:
		b.UnmountHost("/proc") // which would show what the container's own is kept from
		b.UnmountHost("/sys")
		if in.RootPlace != "" {
			b.MoveMountTo(b.root, "/")
		}
		b.MakeRoot()
	default:
		b.PivotRoot()
	}
	for _, kv := range in.Sysctl {
		b.For("set sysctl " + kv[0])
		mark := b.Mark()
		f := b.Open(clone.At(b.proc), "sys/"+sysctlPath(kv[0]), syscall.O_WRONLY, "WRONLY", clone.Beneath)
		b.Write(clone.At(f), kv[1])
		b.Close(clone.At(f))
		b.Release(mark)
	}
	for _, p := range in.ReadOnlyPaths {
		b.readOnly(p)
	}
	for _, m := range in.Masked {
		b.mask(m, null, empty)
	}
	for i := range in.Mounts {
		if m := &in.Mounts[i]; m.Late {
			b.For("make " + m.Destination + " read-only")
			b.SetMountAttr(b.kept[i], attrRDONLY, 0, 0, false, "+RDONLY")
		}
	}
	b.cwd(in.Cwd)
	if in.ReadOnly {
		b.For("make the root read-only")
		b.SetMountAttr(b.root, attrRDONLY, 0, 0, false, "+RDONLY")
	}
	if in.Propagation != 0 {
		b.For("set the root's propagation")
		b.Propagate("/", in.Propagation, in.PropagationName)
	}
	b.stdio(&in.Process)
	b.lookFor(&in.Process) // callers of a runtime's create expect it to fail for a missing program, not start
	if in.Open && !in.HooksStart {
		b.Undumpable()
	}
	if in.Listener != nil {
		b.For("close what was for the way here")
		keep := []clone.Arg{clone.File(*in.Listener)}
		for _, l := range labels {
			keep = append(keep, clone.At(l))
		}
		kept := b.CloseOthers(3+in.Preserve, keep...)
		labels = kept[1:]
		b.For("wait for start")
		b.ReadyListen(clone.At(kept[0]), in.Open)
	} else {
		b.For("wait for start")
		b.Ready()
	}
	if in.HooksStart {
		b.For("wait for hooks")
		b.Ready()
	}
	b.finish(&in.Process, labels)
	return b.Script
}

// awaitCgroup stops until the parent has had the process moved: the one that is to go on, after any Fork.
func (b *builder) awaitCgroup(p *Process) {
	if p.AwaitCgroup {
		b.For("wait to be moved to the cgroup")
		b.Ready()
	}
}

// users makes the process the first user of its user namespace, and makes a time namespace. Files of procfs are opened before that: as
// long as nothing may look into this process they belong to a user that the namespace does not have.
func (b *builder) users(in *Init) {
	offsets := clone.Reg(-1)
	if in.Time != "" {
		b.For("set the time namespace's offsets")
		offsets = b.OpenHost("/proc/self/timens_offsets", syscall.O_WRONLY, "WRONLY")
	}
	if in.Mapped {
		b.For("wait for the user namespace's mappings")
		b.Ready()
	}
	b.become(&in.Process)
	if in.NewTime {
		b.For("make time namespace")
		b.Unshare(newTime, "NEWTIME") // of the children to come
		if offsets >= 0 {
			b.For("set the time namespace's offsets")
			b.Write(clone.At(offsets), in.Time)
			b.Close(clone.At(offsets))
		}
		b.For("enter time namespace") // which execve does, too, but not before Linux 6.3
		mark := b.Mark()
		own := b.OpenHost("/proc/self/ns/time_for_children", syscall.O_RDONLY, "RDONLY")
		b.Setns(clone.At(own), newTime, "NEWTIME")
		b.Close(clone.At(own))
		b.Release(mark)
	}
}

func (b *builder) become(p *Process) {
	if !p.InUser {
		return
	}
	b.For("become user 0 of the user namespace")
	b.Groups(nil, clone.Ignore(syscall.EPERM)) // denied, where the one who made the namespace had no right to change groups
	b.Script.User(0, 0)
	if p.Open {
		b.Prctl(syscall.PR_SET_DUMPABLE, "SET_DUMPABLE", 1)
	} else {
		b.Undumpable()
	}
}

// begin has what comes first: nothing of the container may be able to look into this process, which still has all of the host's
// rights, and what it allocates counts as the container's.
func (b *builder) begin(p *Process) {
	b.For("begin")
	if !p.Open {
		b.Undumpable()
	}
	if len(p.labels()) > 0 {
		b.For("open the host's procfs")
		b.hostProc = b.OpenHost("/proc", oPath|oDirectory, "PATH|DIRECTORY")
		b.RequireProc(clone.At(b.hostProc))
	}
	if p.OOMScoreAdj != nil {
		b.For("set OOM score adjustment")
		mark := b.Mark()
		f := b.OpenHost("/proc/self/oom_score_adj", syscall.O_WRONLY, "WRONLY")
		b.Write(clone.At(f), fmt.Sprint(*p.OOMScoreAdj))
		b.Close(clone.At(f))
		b.Release(mark)
	}
	if p.FirstCPUs != nil {
		b.For("run on the processors of the beginning")
		b.Affinity(p.FirstCPUs, "processors")
	}
	for _, f := range p.CgroupFiles {
		b.For("join cgroup " + f.Name)
		b.Write(clone.File(f), "0")
	}
}

// labels returns what security modules have to be told, in the order of telling.
func (p *Process) labels() []*Label {
	return slices.DeleteFunc([]*Label{p.AppArmor, p.SELinux}, func(l *Label) bool { return l == nil })
}

// openLabels opens the files of the security modules for the process that will execute the program: the kernel lets no other use them.
// They belong to the host's procfs, which was opened when nothing of the container's could be there instead (CVE-2019-16884).
func (b *builder) openLabels(p *Process) (files []clone.Reg) {
	list := p.labels()
	if len(list) == 0 {
		return nil
	}
	b.For("open security label")
	for _, l := range list {
		files = append(files, b.Open(clone.At(b.hostProc), "thread-self/"+l.File, syscall.O_WRONLY, "WRONLY", clone.BeneathAt))
	}
	b.Close(clone.At(b.hostProc))
	return files
}

// target opens dst, below root, as a handle; whatever of it is missing is made, the last as a file if file says so.
func (b *builder) target(root clone.Arg, dst string, file bool, how clone.Resolve) clone.Reg {
	out := b.Reg()
	done := b.Label()
	dst = path.Clean("/" + dst)
	const dirFlags = oPath | oDirectory
	b.OpenTo(out, root, dst, oPath, "PATH", how, clone.Ignore(syscall.ENOENT), clone.Then(done))
	if dst == "/" {
		b.Place(done)
		return out
	}
	mark := b.Mark()
	at, next := b.Reg(), b.Reg()
	b.OpenTo(at, root, "/", dirFlags, "PATH|DIRECTORY", how)
	parts := strings.Split(dst[1:], "/")
	for i, part := range parts[:len(parts)-1] {
		have := b.Label()
		b.OpenTo(next, root, "/"+strings.Join(parts[:i+1], "/"), dirFlags, "PATH|DIRECTORY", how, clone.Ignore(syscall.ENOENT), clone.Then(have))
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
	b.copyOf(c, first, false)
	b.MoveMount(clone.At(c), clone.At(t), clone.Else(other, syscall.ENOTDIR, syscall.EINVAL), clone.Then(done))
	b.Place(other)
	b.Close(clone.At(c))
	b.copyOf(c, second, false)
	b.MoveMount(clone.At(c), clone.At(t))
	b.Place(done)
	b.Close(clone.At(c))
	b.Close(clone.At(t))
	b.Place(skip)
	b.Release(mark)
}

// copyOf puts a fresh copy of the mount m in out, with recursive of those below it too; m itself while it is attached nowhere yet, of
// which older kernels (before Linux 6.15) make no copy.
func (b *builder) copyOf(out clone.Reg, m clone.Arg, recursive bool) {
	have := b.Label()
	b.CloneTreeTo(out, m, "", recursive, clone.Ignore(syscall.EINVAL), clone.Then(have))
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
	t := b.target(clone.Cwd(), dir, false, clone.InRoot)
	b.Close(clone.At(t))
	b.Release(mark)
}

func (b *builder) stdio(p *Process) {
	b.For("set up standard input and output")
	for i, f := range p.Stdio {
		if b.tty >= 0 {
			b.Dup(clone.At(b.tty), i)
		} else {
			b.Dup(clone.File(f), i)
		}
	}
	if p.Terminal {
		b.ControllingTerminal(clone.Int(0))
	}
	if p.NullStdio == [3]bool{} {
		return
	}
	// The host's file lies on no mount of the container's, which is what criu asks.
	b.For("open the container's /dev/null")
	mark, hosts := b.Mark(), b.Label()
	null := b.Open(clone.Cwd(), "/dev/null", syscall.O_RDWR, "RDWR", clone.InRoot, clone.Else(hosts, syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, syscall.EACCES, syscall.EPERM, syscall.EISDIR,
		syscall.EROFS, syscall.ENXIO, syscall.ENODEV, syscall.EBUSY, syscall.ETXTBSY, syscall.ENOSYS))
	b.RequireNull(clone.At(null), hosts)
	for i, own := range p.NullStdio {
		if own {
			b.Dup(clone.At(null), i)
		}
	}
	b.Place(hosts)
	b.Release(mark)
}

// lookFor ends the script if there is no program to execute. It does not know yet whether its user may.
func (b *builder) lookFor(p *Process) {
	b.For("look for the program")
	paths := make([]string, len(p.Paths))
	for i, name := range p.Paths {
		if paths[i] = name; !path.IsAbs(name) {
			paths[i] = p.Cwd + "/" + name
		}
	}
	b.CanExec(paths)
}

// finish gives up every right that the program is not to have, in the one order that works, and executes it.
func (b *builder) finish(p *Process, labels []clone.Reg) {
	for _, r := range p.Rlimits {
		b.For("set " + r.Name)
		b.Rlimit(r.Resource, r.Name, r.Soft, r.Hard)
	}
	b.attributes(p)
	ruleset := b.ruleset(p.Landlock)
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
	for i, l := range p.labels() {
		b.For("set security label " + l.Value)
		b.Write(clone.At(labels[i]), l.Value)
	}
	b.For("close descriptors")
	b.CloseOnExecFrom(3 + p.Preserve)
	b.UnblockSignals()
	// Without no_new_privs ruleset and filter need CAP_SYS_ADMIN, so they come before that is gone, but after all else that they might
	// forbid.
	if !p.NoNewPrivs && (p.Seccomp != nil || ruleset >= 0) {
		if p.User.UID != 0 {
			b.For("take back the rights to be given up")
			b.CapSet(p.Own, p.Own, 0) // the change of user emptied the effective set
		}
		b.restrict(ruleset)
		b.filter(p)
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
		b.restrict(ruleset)
		b.filter(p)
	}
	if p.DieWithParent {
		b.For("die with the parent") // so late because a change of user undoes it
		b.DieWithParent()
	}
	if p.AsksExec {
		if p.Open { // as it would be by now, were there nobody to ask
			b.Prctl(syscall.PR_SET_DUMPABLE, "SET_DUMPABLE", 1)
		}
		b.For("tell of the execution that its listener is to be asked about")
		b.Executing()
	}
	b.For(Execute)
	b.Script.Exec(p.Paths, p.Args, p.Env)
}

// Execute is what the last step of a script is for.
const Execute = "execute"

// user changes to the process's directory and user: in this order, as root may enter what the user may not, unless root may not
// either (NFS) and the user may. The directory is opened by a walk that follows no magic link: one to a descriptor of the host's
// would lead out of the root (CVE-2024-21626).
func (b *builder) user(p *Process) {
	change := func() {
		b.For("change user")
		b.KeepCaps(true)
		if p.InUser && len(p.User.AdditionalGids) == 0 {
			b.Groups(nil, clone.Ignore(syscall.EPERM))
		} else {
			b.Groups(p.User.AdditionalGids)
		}
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
