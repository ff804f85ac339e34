package oci

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/linux/clone"
	"gantry/linux/mount"
	"gantry/linux/ns"
	"gantry/linux/safepath"
	"gantry/oci/initproc"
)

// mounts prepares every mount of the specification.
func (c *creation) mounts(root *os.File) error {
	for i, m := range c.b.Spec.Mounts {
		if !path.IsAbs(m.Destination) {
			c.warnings = append(c.warnings, fmt.Sprintf("mounts[%d].destination %q is not absolute: taken as one below the root", i, m.Destination))
		}
		if err := c.mount(root, labelled(m, c.b.Spec.Linux.MountLabel)); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	if err := c.nodes(); err != nil {
		return err
	}
	if c.inside || c.maps.on { // made by the one that they are to belong to
		return nil
	}
	return c.places(root)
}

// labelled returns the mount with SELinux's label for its files, if its file system takes one for all of them.
func labelled(m specs.Mount, label string) specs.Mount {
	if label != "" && slices.Contains([]string{"tmpfs", "devpts", "mqueue", "ramfs"}, m.Type) {
		m.Options = append(slices.Clone(m.Options), "context="+label)
	}
	return m
}

// places makes the mount points that are missing in the root file system itself, along links to nothing too (an image's /var/run ->
// /run without a /run). Those in other mounts are the script's to make, when the mounts are there.
func (c *creation) places(root *os.File) error {
	for i := range c.in.Mounts {
		m := &c.in.Mounts[i]
		below := func(o initproc.Mount) bool {
			return strings.HasPrefix(m.Destination, strings.TrimSuffix(o.Destination, "/")+"/")
		}
		if m.There || slices.ContainsFunc(c.in.Mounts[:i], below) {
			continue
		}
		f, err := safepath.Open(root, m.Destination, oPath, 0)
		if errors.Is(err, syscall.ENOENT) {
			f, err = makePlace(root, m.Destination, m.File)
		}
		if err != nil {
			return fmt.Errorf("make mount point %s: %w", m.Destination, err)
		}
		f.Close()
		m.There = true
	}
	return nil
}

func makePlace(root *os.File, dst string, file bool) (*os.File, error) {
	if !file {
		return safepath.MkdirAll(root, dst, 0o755)
	}
	for range safepath.MaxLinks {
		dir, err := safepath.MkdirAll(root, path.Dir(dst), 0o755)
		if err != nil {
			return nil, err
		}
		target, link := safepath.Readlink(dir, path.Base(dst))
		if !link {
			defer dir.Close()
			if err := safepath.Mknod(dir, path.Base(dst), syscall.S_IFREG|0o644, 0); err != nil && !errors.Is(err, syscall.EEXIST) {
				return nil, err
			}
			return safepath.OpenNoFollow(dir, path.Base(dst), oPath, 0)
		}
		dir.Close()
		if !path.IsAbs(target) {
			target = path.Dir(dst) + "/" + target // not cleaned: the way to it may go through links, too
		}
		dst = target
	}
	return nil, &os.PathError{Op: "make", Path: dst, Err: syscall.ELOOP}
}

// oPath is O_PATH, which package syscall lacks.
const oPath = 0x200000

func (c *creation) add(dst string, f *os.File, file bool) {
	c.in.Mounts = append(c.in.Mounts, initproc.Mount{Destination: dst, FD: clone.FD{Name: "mount " + dst, File: c.keep(f)}, File: file})
}

// inProc lists what may be mounted in a procfs: files that programs like lxcfs give a container its own view by.
func inProc() []string {
	return []string{
		"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
		"/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
	}
}

func (c *creation) mount(root *os.File, m specs.Mount) error {
	o, err := mount.Parse(m.Options)
	if err != nil {
		return err
	}
	dst := path.Clean("/" + m.Destination)
	if inside, ok := strings.CutPrefix(dst, c.top()+"/"); ok && c.b.Root == nil { // callers may name places by their paths on the host
		dst = "/" + inside
	}
	may := strings.HasPrefix(dst, "/proc/") && slices.Contains(inProc(), dst)
	if strings.HasPrefix(dst, "/proc/") && !may {
		return errdefs.New(errdefs.InvalidParameter, "nothing can be mounted inside /proc there")
	}
	if handed := c.b.Mounts[dst]; handed != nil {
		st, err := handed.Stat()
		if err != nil {
			return err
		}
		c.in.Mounts = append(c.in.Mounts, initproc.Mount{Destination: dst, FD: clone.FD{Name: "mount " + dst, File: handed}, File: !st.IsDir(), InProc: may})
		return nil
	}
	first := len(c.in.Mounts)
	if err := c.make(root, m, dst, o); err != nil {
		return err
	}
	for i := range c.in.Mounts[first:] {
		c.in.Mounts[first+i].InProc = may
	}
	return nil
}

func (c *creation) make(root *os.File, m specs.Mount, dst string, o mount.Options) error {
	bind := o.Bind || m.Type == "bind"
	if dst == "/proc" && m.Type != "proc" && !(bind && c.isProc(m.Source)) {
		return errdefs.New(errdefs.InvalidParameter, "only a procfs can be mounted there")
	}
	switch {
	case bind:
		return c.bind(m, dst, o)
	case o.IDMap || len(m.UIDMappings)+len(m.GIDMappings) > 0:
		return errdefs.New(errdefs.InvalidParameter, "only a bind mount can have mappings")
	case m.Type == "proc", m.Type == "mqueue", m.Type == "sysfs": // they show the namespaces they are made in
		c.addFS(m, dst, o)
		return nil
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return c.cgroupMount(m, dst, o)
	case m.Type == "tmpfs":
		return c.tmpfs(root, m, dst, o)
	case c.inside:
		c.addFS(m, dst, o)
		return nil
	}
	if m.Type == "devpts" && c.maps.on {
		options, err := c.maps.translate(m.Options)
		if err != nil {
			return err
		}
		m.Options = options
	}
	f, err := mount.FS(m.Type, m.Source, m.Options)
	if err != nil {
		return err
	}
	if m.Type == "devpts" && dst == "/dev/pts" {
		c.devpts = f
	}
	c.add(dst, f, false)
	if m.Type == "devpts" {
		if err := c.giveToRoot(f, "."); err != nil {
			return err
		}
	}
	return c.propagate(f, o)
}

// isProc reports whether there is a procfs at a path of the host's.
func (c *creation) isProc(path string) bool {
	f, err := os.OpenFile(path, oPath, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return mount.IsProc(f)
}

// translate returns options of a file system with the users in them as they are outside.
func (m idMaps) translate(options []string) ([]string, error) {
	list := slices.Clone(options)
	for i, o := range list {
		key, value, _ := strings.Cut(o, "=")
		if key != "uid" && key != "gid" {
			continue
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return nil, errdefs.New(errdefs.InvalidParameter, "option %s is not a number", o)
		}
		maps := m.uids
		if key == "gid" {
			maps = m.gids
		}
		outside, ok := ns.HostID(maps, uint32(n))
		if !ok {
			return nil, errdefs.New(errdefs.InvalidParameter, "option %s is not in linux.%sMappings", o, key)
		}
		list[i] = fmt.Sprintf("%s=%d", key, outside)
	}
	return list, nil
}

// addFS adds a file system that the child makes.
func (c *creation) addFS(m specs.Mount, dst string, o mount.Options) *initproc.Mount {
	fs := initproc.Mount{Destination: dst, FSType: m.Type, Source: m.Source, Attr: uint64(o.Set)}
	for _, d := range o.Data {
		key, value, _ := strings.Cut(d, "=")
		fs.Data = append(fs.Data, [2]string{key, value})
	}
	if c.in.InUser || c.inside { // where the network or IPC namespace belongs to the host, so must its view
		switch m.Type {
		case "sysfs":
			fs.Fallback = "/sys"
		case "mqueue":
			fs.Fallback = "/dev/mqueue"
		case "cgroup2":
			fs.Fallback = cgroup.Root
		}
	}
	if o.Propagation != 0 {
		fs.Changes = []initproc.Change{{Propagation: uint64(o.Propagation), Recursive: o.PropagationRec}}
	}
	c.in.Mounts = append(c.in.Mounts, fs)
	return &c.in.Mounts[len(c.in.Mounts)-1]
}

func (c *creation) propagate(f *os.File, o mount.Options) error {
	if o.Propagation == 0 {
		return nil
	}
	ch := initproc.Change{Propagation: uint64(o.Propagation), Recursive: o.PropagationRec}
	if c.b.InOrder && isUnbindable(ch) {
		m := &c.in.Mounts[len(c.in.Mounts)-1]
		m.Changes = append(m.Changes, ch)
		return nil
	}
	return apply(f, []initproc.Change{ch})
}

func isUnbindable(ch initproc.Change) bool { return ch.Propagation == uint64(mount.Unbindable) }

// unbindable returns those of the changes that make a mount unbindable.
func unbindable(changes []initproc.Change) []initproc.Change {
	return slices.DeleteFunc(slices.Clone(changes), func(ch initproc.Change) bool { return !isUnbindable(ch) })
}

func (c *creation) bind(m specs.Mount, dst string, o mount.Options) error {
	if m.Source == "" {
		return errdefs.New(errdefs.InvalidParameter, "bind mount without a source")
	}
	src := m.Source
	if !filepath.IsAbs(src) {
		src = filepath.Join(c.b.Dir, src)
	}
	changes := bindChanges(o, basePropagation(c.b.Spec.Linux.RootfsPropagation), 0, c.inside)
	mapped := o.IDMap || len(m.UIDMappings)+len(m.GIDMappings) > 0
	if c.inside {
		if mapped {
			return errdefs.New(errdefs.Forbidden, "option idmap, uidMappings, gidMappings: the kernel maps owners for the host's root only")
		}
		st, err := os.Stat(src)
		if err != nil {
			return err
		}
		c.in.Mounts = append(c.in.Mounts, initproc.Mount{Destination: dst, Bind: src, Recursive: o.Recursive, Changes: changes, File: !st.IsDir()})
		return nil
	}
	if inside, ok := c.mountedHere(src); ok {
		st, err := os.Stat(src)
		file := err == nil && !st.IsDir()
		c.in.Mounts = append(c.in.Mounts, initproc.Mount{Destination: dst, Bind: inside, FromRoot: true, Recursive: o.Recursive, Changes: changes, File: file})
		if mapped {
			c.hand(func(f *os.File) error { return c.mapIDs(f, m, o) })
		}
		return nil
	}
	f, err := mount.Bind(src, o.Recursive)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	c.add(dst, f, !st.IsDir())
	last := &c.in.Mounts[len(c.in.Mounts)-1]
	last.Copied = true
	if c.maps.on { // the container's own root could not take these away, so neither does its specification
		locked, err := mount.Locked(f)
		if err != nil {
			return err
		}
		if lost := o.Clear & locked; lost != 0 {
			return errdefs.New(errdefs.Forbidden, "options that the source %s has must stay in a user namespace: operation not permitted", src)
		}
		changes = bindChanges(o, basePropagation(c.b.Spec.Linux.RootfsPropagation), locked, false)
	}
	if c.b.InOrder { // of one that is unbindable there are no copies
		last.Changes = unbindable(changes)
		changes = slices.DeleteFunc(changes, isUnbindable)
	}
	if err := apply(f, changes); err != nil || !mapped {
		return err
	}
	return c.mapIDs(f, m, o)
}

// hand has the child pass the last mount, before it is attached, for something that only this process can do.
func (c *creation) hand(do func(*os.File) error) {
	c.in.Mounts[len(c.in.Mounts)-1].Handed = true
	c.handed = append(c.handed, do)
}

// takeHanded does what is to be done with the mounts that the child passes.
func (c *creation) takeHanded(child *clone.Child) error {
	for _, do := range c.handed {
		f, err := child.NextFile("mount")
		if err != nil {
			return err
		}
		err = errors.Join(do(f), f.Close())
		if err == nil {
			var m clone.Message
			if m, err = child.Next(); err == nil && m != clone.Ready {
				err = errors.New("init ended early")
			}
		}
		if err == nil {
			err = child.Go()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mountedHere reports whether a path of the host's is to be in one of the mounts before, and where that is in the container.
func (c *creation) mountedHere(src string) (string, bool) {
	inside, ok := strings.CutPrefix(path.Clean(src), c.top())
	if !ok || c.b.Root != nil || !strings.HasPrefix(inside, "/") {
		return "", false
	}
	return inside, slices.ContainsFunc(c.in.Mounts, func(m initproc.Mount) bool {
		return m.Destination != "/" && (inside == m.Destination || strings.HasPrefix(inside, m.Destination+"/") || strings.HasPrefix(m.Destination, inside+"/"))
	})
}

// mapIDs translates owners in a mount by its own mappings, or by those of the container's user namespace.
func (c *creation) mapIDs(f *os.File, m specs.Mount, o mount.Options) error {
	maps := idMaps{true, m.UIDMappings, m.GIDMappings}
	if len(m.UIDMappings)+len(m.GIDMappings) == 0 {
		if maps = c.maps; !maps.on {
			return errdefs.New(errdefs.InvalidParameter, "option idmap without uidMappings and gidMappings needs a user namespace")
		}
	}
	users, err := maps.mapped()
	if err != nil {
		return err
	}
	defer users.Close()
	return mount.MapIDs(f, users, o.IDMapRec)
}

// apply makes changes to a mount of this process.
func apply(f *os.File, changes []initproc.Change) error {
	for _, ch := range changes {
		if err := mount.SetAttr(f, mount.Attr(ch.Set), mount.Attr(ch.Clear), mount.Propagation(ch.Propagation), ch.Recursive); err != nil {
			return err
		}
	}
	return nil
}

// bindChanges is what the options of a bind mount make of the copy of its source. base is how it spreads if they do not say, 0 for as it
// does; keep are attributes that are not taken away; locked says that the kernel may refuse to take some away.
func bindChanges(o mount.Options, base mount.Propagation, keep mount.Attr, locked bool) []initproc.Change {
	var list []initproc.Change
	spread := func(p mount.Propagation, recursive bool) {
		list = append(list, initproc.Change{Propagation: uint64(p), Recursive: recursive})
	}
	switch p := o.Propagation; {
	case p == 0:
		if base != 0 {
			spread(base, true)
		}
	case p == mount.Shared || p == mount.Slave: // of all, or those below would be the host's still
		spread(p, true)
	default:
		spread(mount.Private, true)
		if p != mount.Private {
			spread(p, o.PropagationRec)
		}
	}
	const atime = 0x70 // a field of three values, which the kernel wants named whole
	field := func(ch initproc.Change) initproc.Change {
		if (ch.Set|ch.Clear)&atime != 0 {
			ch.Clear |= atime
		}
		return ch
	}
	if o.Set|o.Clear != 0 {
		asked := field(initproc.Change{Set: uint64(o.Set), Clear: uint64(o.Clear)})
		exact := asked
		// As mount(8) has it, options say all there is to say: what they do not name is off, unless the source has it locked.
		if !o.Remount {
			exact.Clear |= uint64((mount.ReadOnly | mount.NoSuid | mount.NoDev | mount.NoExec | mount.NoSymFollow) &^ (o.Set | keep))
			if locked {
				exact.Else = &asked
			}
		}
		list = append(list, exact)
	}
	if o.RecSet|o.RecClear != 0 {
		list = append(list, field(initproc.Change{Set: uint64(o.RecSet), Clear: uint64(o.RecClear), Recursive: true}))
	}
	return list
}

func (c *creation) tmpfs(root *os.File, m specs.Mount, dst string, o mount.Options) error {
	dev := dst == "/dev"
	options := slices.DeleteFunc(slices.Clone(m.Options), func(s string) bool { return s == "ro" }) // when all is in it
	if !slices.ContainsFunc(options, func(s string) bool { return strings.HasPrefix(s, "mode=") }) {
		// As with mount(8) in a container's own hands: what is at the place decides.
		if d, err := safepath.Open(root, dst, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0); err == nil {
			if st, err := d.Stat(); err == nil {
				mode := uint32(st.Mode().Perm())
				for bit, set := range map[uint32]os.FileMode{0o1000: os.ModeSticky, 0o2000: os.ModeSetgid, 0o4000: os.ModeSetuid} {
					if st.Mode()&set != 0 {
						mode |= bit
					}
				}
				options = append(options, fmt.Sprintf("mode=%o", mode))
			}
			d.Close()
		}
	}
	m.Source = cmp.Or(m.Source, "tmpfs")
	late := o.Set&mount.ReadOnly != 0
	if c.inside || c.maps.on && !dev && !o.CopyUp {
		copied := o.CopyUp
		var err error
		if o, err = mount.Parse(options); err != nil {
			return err
		}
		fs := c.addFS(m, dst, o)
		fs.Late = late
		if copied {
			c.hand(func(f *os.File) error {
				if err := copyUp(root, dst, f); err != nil {
					return fmt.Errorf("mount %s: option tmpcopyup: %w", dst, err)
				}
				return nil
			})
		}
		if dev {
			return c.bindDev(fs)
		}
		return nil
	}
	if c.maps.on {
		own, err := c.maps.translate(append([]string{"uid=0", "gid=0"}, options...))
		if err != nil {
			return err
		}
		options = own
	}
	f, err := mount.FS("tmpfs", m.Source, options)
	if err != nil {
		return err
	}
	c.add(dst, f, false)
	if o.CopyUp {
		if err := copyUp(root, dst, f); err != nil {
			return fmt.Errorf("option tmpcopyup: %w", err)
		}
	}
	if dev {
		if err := c.fillDev(f); err != nil {
			return err
		}
	}
	c.in.Mounts[len(c.in.Mounts)-1].Late = late
	return c.propagate(f, o)
}

// cgroupMount shows the container its own cgroup: the unified hierarchy by one mount, the separate ones of v1 by one each in a
// tmpfs. They are copies of the cgroup's own directories, so that with a cgroup namespace or without there is nothing above to see.
func (c *creation) cgroupMount(m specs.Mount, dst string, o mount.Options) error {
	if c.inside {
		if cgroup.Unified() && c.in.NewCgroup {
			m.Type = "cgroup2"
			c.addFS(m, dst, o)
			return nil
		}
		changes := []initproc.Change{{Propagation: uint64(mount.Private), Recursive: true}, {Set: uint64(o.Set) &^ 0x70, Recursive: true}}
		c.in.Mounts = append(c.in.Mounts, initproc.Mount{Destination: dst, Bind: cgroup.Root, Recursive: true, Changes: changes})
		return nil
	}
	if c.cgroup == nil {
		return nil
	}
	dirs := c.cgroup.Dirs()
	attach := func(dst, src string) error {
		f, err := mount.Bind(src, false)
		if err != nil {
			return err
		}
		c.add(dst, f, false)
		return mount.SetAttr(f, o.Set, o.Clear, mount.Private, false)
	}
	if cgroup.Unified() {
		if !c.in.NewCgroup {
			return attach(dst, cgroup.Root)
		}
		return attach(dst, dirs[0].Path)
	}
	f, err := mount.FS("tmpfs", "tmpfs", []string{"mode=755", "nosuid", "nodev", "noexec", "size=64k"})
	if err != nil {
		return err
	}
	c.add(dst, f, false)
	for _, d := range dirs {
		sub, err := safepath.MkdirAll(f, d.Name, 0o755)
		if err != nil {
			return err
		}
		sub.Close()
		for _, alias := range d.Aliases { // "cpu" for "cpu,cpuacct"
			if err := safepath.Symlink(f, alias, d.Name); err != nil && !errors.Is(err, syscall.EEXIST) {
				return err
			}
		}
	}
	if o.Set&mount.ReadOnly != 0 {
		if err := mount.SetAttr(f, mount.ReadOnly, 0, 0, false); err != nil {
			return err
		}
	}
	for _, d := range dirs {
		if err := attach(path.Join(dst, d.Name), d.Path); err != nil {
			return err
		}
		m := &c.in.Mounts[len(c.in.Mounts)-1]
		m.There, m.Once = true, true // they are one mount in the specification, which has its place
	}
	return nil
}

// hidden prepares what covers masked paths.
func (c *creation) hidden() error {
	l := c.b.Spec.Linux
	c.in.ReadOnlyPaths = l.ReadonlyPaths
	if len(l.MaskedPaths) == 0 {
		return nil
	}
	for i, p := range l.MaskedPaths {
		if slices.Contains(l.MaskedPaths[:i], p) {
			continue
		}
		st, err := os.Stat(p) // the host's only hints at the container's
		c.in.Masked = append(c.in.Masked, initproc.Masked{Path: p, Dir: err == nil && st.IsDir()})
	}
	if c.inside {
		return nil
	}
	null, err := mount.Bind("/dev/null", false)
	if err != nil {
		return err
	}
	c.in.Null = clone.FD{Name: "null", File: c.keep(null)}
	if st, err := null.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 || st.Sys().(*syscall.Stat_t).Rdev != safepath.Device(1, 3) {
		return errdefs.New(errdefs.Internal, "/dev/null of this machine is not the null device")
	}
	if err := mount.SetAttr(null, 0, 0, mount.Private, false); err != nil {
		return err
	}
	empty, err := mount.FS("tmpfs", "tmpfs", []string{"ro", "size=0", "mode=755", "nosuid", "nodev", "noexec"})
	if err != nil {
		return err
	}
	c.in.Empty = clone.FD{Name: "empty", File: c.keep(empty)}
	return nil
}

// sortedSysctl returns the settings in a fixed order.
func sortedSysctl(m map[string]string) [][2]string {
	var list [][2]string
	for k, v := range m {
		list = append(list, [2]string{k, v})
	}
	slices.SortFunc(list, func(a, b [2]string) int { return cmp.Compare(a[0], b[0]) })
	return list
}
