package initproc

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"gantry/linux/clone"
)

// Mount is a mount to put in place, in order. It is one of three: FD; a file system of FSType, made in the child's namespaces; or a
// copy of what is mounted at Bind, a path of the host's.
type Mount struct {
	Destination string
	FD          clone.FD // detached mount with its attributes set
	FSType      string
	Source      string
	Data        [][2]string
	Attr        uint64 // mount attributes for FSType
	Fallback    string // with FSType: bind this path of the host's where the user namespace has no right to make that
	Once        bool   // something is open on it: it is not made anew
	Bind        string
	FromRoot    bool     // Bind is a path in the container, as it is when the mounts before are there
	Recursive   bool     // with Bind: of the mounts below it, too
	Changes     []Change // of what Bind copies, or of FD
	Copied      bool     // FD is a copy of what is mounted on the host
	Devices     []Device // made in it, by binds of the host's
	Links       [][2]string
	File        bool // it is a file, not a directory
	Late        bool // becomes read-only after all else is done
	There       bool // the mount point exists
	InProc      bool // its place may be inside a procfs
	Handed      bool // with FSType or Bind: the parent gets the mount before it is attached, and does something with it
}

// Device is a device of the host's that is bound to a name in a /dev.
type Device struct{ Name, Host string }

// Node is a device to make in the root file system, or in what is mounted there.
type Node struct {
	Path     string
	Mode     uint32 // type and permissions
	Device   uint64 // its number
	UID, GID int
}

// Change is a change of a mount's attributes and propagation.
type Change struct {
	Set, Clear, Propagation uint64
	Recursive               bool
	// Else is what is done instead when the kernel refuses the change: the host's mount has attributes that a user namespace must not take away.
	Else *Change
}

func (b *builder) change(m clone.Arg, c *Change) {
	name := fmt.Sprintf("+%#x -%#x propagation %#x", c.Set, c.Clear, c.Propagation)
	if c.Else == nil {
		b.SetMountAttr(m, c.Set, c.Clear, c.Propagation, c.Recursive, name)
		return
	}
	refused, done := b.Label(), b.Label()
	b.SetMountAttr(m, c.Set, c.Clear, c.Propagation, c.Recursive, name, clone.Else(refused, syscall.EPERM), clone.Then(done))
	b.Place(refused)
	b.change(m, c.Else)
	b.Place(done)
}

// enterRoot attaches the root file system where nobody else sees it. Everything else is mounted below it by its descriptor; the host's
// root directory stays until all of that is done, as what the mounts are made from.
func (b *builder) enterRoot(in *Init) {
	if in.Root.File != nil {
		b.root = clone.File(in.Root)
	} else {
		b.For("open the root file system " + in.RootPath)
		b.root = clone.At(b.CloneTree(clone.Cwd(), in.RootPath, true))
		for i := range in.RootChanges {
			b.change(b.root, &in.RootChanges[i])
		}
	}
	place := in.RootPlace
	if place == "" {
		place = "/"
	}
	b.aside(in)
	b.For("attach the root file system")
	b.MoveMountTo(b.root, place)
	b.For("enter the root file system")
	if in.InUser {
		b.For("enter the root file system, as user 0 of the user namespace, who must have access to it")
	}
	b.Fchdir(b.root)
}

// make returns the mount, and whether it is a register's to close.
func (b *builder) make(m *Mount, out clone.Reg) clone.Arg {
	switch {
	case m.Bind != "":
		if m.FromRoot {
			mark := b.Mark()
			from := b.Open(b.root, m.Bind, oPath, "PATH", clone.InRoot)
			b.CloneTreeTo(out, clone.At(from), "", m.Recursive)
			b.Close(clone.At(from))
			b.Release(mark)
		} else {
			b.CloneTreeTo(out, clone.Cwd(), m.Bind, m.Recursive)
		}
		for i := range m.Changes {
			b.change(clone.At(out), &m.Changes[i])
		}
	case m.FSType != "" && m.Fallback != "":
		refused, done := b.Label(), b.Label()
		b.NewFSTo(out, m.FSType, m.Source, m.Data, m.Attr, clone.Else(refused, syscall.EPERM))
		b.Jump(done)
		b.Place(refused)
		b.CloneTreeTo(out, clone.Cwd(), m.Fallback, true)
		b.change(clone.At(out), &Change{Set: m.Attr &^ 0x70, Recursive: true}) // the times of access are locked
		b.Place(done)
	case m.FSType != "":
		b.NewFSTo(out, m.FSType, m.Source, m.Data, m.Attr)
		for i := range m.Changes {
			b.change(clone.At(out), &m.Changes[i])
		}
	default:
		return clone.File(m.FD)
	}
	return clone.At(out)
}

// aside makes a place that nobody sees for mounts that makeAgain makes copies of.
func (b *builder) aside(in *Init) {
	again := func(m Mount) bool { return m.Copied && !m.Once }
	if !in.InOrder || in.HostMounts || in.Aside == "" || !slices.ContainsFunc(in.Mounts, again) {
		return
	}
	b.For("make a place for mounts to be copied")
	t := b.NewFS("tmpfs", "tmpfs", [][2]string{{"mode", "700"}}, 0xf&^attrRDONLY)
	b.MoveMountTo(clone.At(t), in.Aside)
	b.apart = t
}

// makeAgain puts a copy of the mount m, which the parent made, in out. Of one that the parent copied from the host's the kernel makes no copy
// here unless it is attached: at a place of its own, as what is mounted on another would spread with that.
func (b *builder) makeAgain(out clone.Reg, m *Mount, i int) {
	if !m.Copied || b.apart < 0 {
		b.copyOf(out, clone.File(m.FD), true)
		return
	}
	mark := b.Mark()
	name := strconv.Itoa(i)
	if m.File {
		b.Mkfile(clone.At(b.apart), name, 0o600)
	} else {
		b.Mkdir(clone.At(b.apart), name, 0o700)
	}
	place := b.Open(clone.At(b.apart), name, oPath, "PATH", clone.InRootHard)
	b.MoveMount(clone.File(m.FD), clone.At(place))
	b.Close(clone.At(place))
	b.CloneTreeTo(out, clone.File(m.FD), "", true)
	b.Release(mark)
}

// maxValue is the longest value that fsconfig(2) takes.
const maxValue = 255

func (m *Mount) long() bool {
	for _, kv := range m.Data {
		if len(kv[1]) > maxValue {
			return true
		}
	}
	return false
}

func (b *builder) attach(m *Mount, i int, again bool) {
	b.For("mount " + m.Destination)
	again = again && !m.Once
	made := m.FSType != "" || m.Bind != "" || again
	keep := made && (m.Late || m.FSType == "proc" || m.FSType == "devpts" || len(m.Devices) > 0)
	var out clone.Reg
	if keep {
		out = b.Reg()
	}
	mark := b.Mark()
	if made && !keep {
		out = b.Reg()
	}
	var what clone.Arg
	if long := m.long(); !long {
		if what = b.make(m, out); again && m.FD.File != nil {
			b.makeAgain(out, m, i)
			what = clone.At(out)
		}
		for i := range m.Changes {
			if m.FD.File != nil {
				b.change(what, &m.Changes[i])
			}
		}
		if m.Handed {
			b.SendFile(out)
			b.Ready()
		}
	}
	// procfs and sysfs must be where they say: through a link of the image, what writes to /proc/self/attr would write elsewhere.
	how := clone.InRoot
	if m.FSType == "proc" || m.FSType == "sysfs" {
		how = clone.InRootHard
	}
	if how == clone.InRootHard {
		b.For("mount " + m.Destination + ", which must be mounted on ordinary directory")
	}
	var t clone.Reg
	if m.There {
		t = b.Open(b.root, m.Destination, oPath, "PATH", how)
	} else {
		t = b.target(b.root, m.Destination, m.File, how)
	}
	if !m.InProc {
		b.For("mount " + m.Destination + ", which must not be inside a procfs")
		b.RefuseProc(clone.At(t))
		b.For("mount " + m.Destination)
	}
	if m.long() {
		b.mountHere(m, t)
	} else {
		b.MoveMount(what, clone.At(t))
		b.kept[i] = what
	}
	b.Close(clone.At(t))
	if made && !keep && !m.long() {
		b.Close(what)
	}
	b.Release(mark)
	switch m.FSType {
	case "proc":
		b.proc = out
	case "devpts":
		if m.Destination == "/dev/pts" {
			b.devpts = out
		}
	}
	b.fill(m, out)
}

// mountHere is for options that are longer than fsconfig takes.
func (b *builder) mountHere(m *Mount, t clone.Reg) {
	var options []string
	for _, kv := range m.Data {
		if kv[1] == "" {
			options = append(options, kv[0])
		} else {
			options = append(options, kv[0]+"="+kv[1])
		}
	}
	b.Fchdir(clone.At(t))
	b.MountHere(m.FSType, m.Source, strings.Join(options, ","), m.Attr&0xf) // read-only, nosuid, nodev and noexec are mount(2)'s, too
	b.Fchdir(b.root)
}

// fill makes devices and links in a /dev that the child has made.
func (b *builder) fill(m *Mount, dev clone.Reg) {
	for _, d := range m.Devices {
		b.For("make device " + path.Join(m.Destination, d.Name))
		mark := b.Mark()
		t := b.target(clone.At(dev), d.Name, true, clone.InRootHard)
		node := b.CloneTree(clone.Cwd(), d.Host, false)
		b.MoveMount(clone.At(node), clone.At(t))
		b.Close(clone.At(node))
		b.Close(clone.At(t))
		b.Release(mark)
	}
	for _, l := range m.Links {
		b.For("make link " + path.Join(m.Destination, l[0]))
		b.MakeLink(clone.At(dev), l[0], l[1])
	}
}

// nodes makes devices and links where nothing is mounted for them. What is there already is left alone.
func (b *builder) nodes(in *Init) {
	if len(in.Nodes)+len(in.Links) == 0 {
		return
	}
	b.For("make devices")
	b.Umask(0)
	for _, n := range in.Nodes {
		b.For("make device " + n.Path)
		mark := b.Mark()
		made := b.Label()
		dir := b.target(b.root, path.Dir(n.Path), false, clone.InRoot)
		b.RefuseProc(clone.At(dir))
		b.Mknod(clone.At(dir), path.Base(n.Path), n.Mode, n.Device, clone.Else(made, syscall.EEXIST))
		b.Lchown(clone.At(dir), path.Base(n.Path), n.UID, n.GID)
		b.Place(made)
		b.Close(clone.At(dir))
		b.Release(mark)
	}
	b.Umask(0o022)
	if len(in.Links) == 0 {
		return
	}
	b.For("make links in /dev")
	mark := b.Mark()
	dir := b.target(b.root, "/dev", false, clone.InRoot)
	for _, l := range in.Links {
		b.MakeLink(clone.At(dir), l[0], l[1])
	}
	b.Close(clone.At(dir))
	b.Release(mark)
}

func (b *builder) console(in *Init) {
	c := in.Console
	if c == nil {
		return
	}
	if c.Made {
		b.For("open a terminal on /dev/pts")
		b.tty = b.terminal(in)
	}
	b.For("bind the terminal to /dev/console")
	mark := b.Mark()
	t := b.target(b.root, "/dev/console", true, clone.InRootHard)
	what := clone.File(c.At)
	switch {
	case c.Made:
		what = clone.At(b.CloneTree(clone.At(b.tty), "", false))
	case c.Name != "":
		what = clone.At(b.CloneTree(what, c.Name, false))
	}
	b.MoveMount(what, clone.At(t))
	b.Close(clone.At(t))
	b.Release(mark)
}

// terminal opens a terminal and passes its master to the parent.
func (b *builder) terminal(in *Init) clone.Reg {
	master, slave := b.OpenTerminal(clone.At(b.devpts))
	if s := in.Console.Size; s != nil {
		b.TerminalSize(clone.At(slave), uint16(s.Height), uint16(s.Width))
	}
	b.Fchown(clone.At(slave), int(in.User.UID), -1)
	b.SendFile(master)
	b.Close(clone.At(master))
	return slave
}

// covers returns what hides masked files and directories.
func (b *builder) covers(in *Init) (null, empty clone.Arg) {
	if len(in.Masked) == 0 {
		return null, empty
	}
	if in.Null.File != nil {
		return clone.File(in.Null), clone.File(in.Empty)
	}
	b.For("make what hides masked paths")
	null = clone.At(b.CloneTree(clone.Cwd(), "/dev/null", false))
	return null, clone.At(b.NewFS("tmpfs", "tmpfs", [][2]string{{"size", "0"}, {"mode", "755"}}, attrRDONLY|0xe))
}
