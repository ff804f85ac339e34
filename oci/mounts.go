package oci

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/cgroup"
	"gantry/linux/clone"
	"gantry/linux/mount"
	"gantry/linux/safepath"
	"gantry/oci/initproc"
)

// mounts prepares every mount of the specification.
func (c *creation) mounts(root *os.File) error {
	for _, m := range c.b.Spec.Mounts {
		if strings.ContainsRune(m.Destination, 0) || m.Destination == "" {
			return errdefs.New(errdefs.InvalidParameter, "mount with the destination %q", m.Destination)
		}
		if err := c.mount(root, m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return c.places(root)
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
	dir, err := safepath.MkdirAll(root, path.Dir(dst), 0o755)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := safepath.Mknod(dir, path.Base(dst), syscall.S_IFREG|0o644, 0); err != nil && !errors.Is(err, syscall.EEXIST) {
		return nil, err
	}
	return safepath.OpenNoFollow(dir, path.Base(dst), oPath, 0)
}

// maxLate is how many file systems a script makes itself: each takes a register.
const maxLate = 32

// oPath is O_PATH, which package syscall lacks.
const oPath = 0x200000

func (c *creation) add(dst string, f *os.File, file bool) {
	c.in.Mounts = append(c.in.Mounts, initproc.Mount{Destination: dst, FD: clone.FD{Name: "mount " + dst, File: c.keep(f)}, File: file})
}

func (c *creation) mount(root *os.File, m specs.Mount) error {
	o, err := mount.Parse(m.Options)
	if err != nil {
		return err
	}
	dst := path.Clean("/" + m.Destination)
	if handed := c.b.Mounts[dst]; handed != nil {
		st, err := handed.Stat()
		if err != nil {
			return err
		}
		c.in.Mounts = append(c.in.Mounts, initproc.Mount{Destination: dst, FD: clone.FD{Name: "mount " + dst, File: handed}, File: !st.IsDir()})
		return nil
	}
	switch {
	case o.Bind || m.Type == "bind":
		return c.bind(m, dst, o)
	case m.Type == "proc" || m.Type == "sysfs" || m.Type == "mqueue": // they show the namespaces they are made in
		if c.late++; c.late > maxLate {
			return errdefs.New(errdefs.InvalidParameter, "more than %d mounts of proc, sysfs and mqueue", maxLate)
		}
		late := initproc.Mount{Destination: dst, FSType: m.Type, Source: m.Source, Attr: uint64(o.Set)}
		for _, d := range o.Data {
			key, value, _ := strings.Cut(d, "=")
			late.Data = append(late.Data, [2]string{key, value})
		}
		c.in.Mounts = append(c.in.Mounts, late)
		return nil
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return c.cgroupMount(dst, o)
	case m.Type == "tmpfs":
		return c.tmpfs(root, m, dst, o)
	}
	f, err := mount.FS(m.Type, m.Source, m.Options)
	if err != nil {
		return err
	}
	if m.Type == "devpts" && dst == "/dev/pts" {
		c.devpts = f
	}
	c.add(dst, f, false)
	return c.propagate(f, o)
}

func (c *creation) propagate(f *os.File, o mount.Options) error {
	if o.Propagation == 0 {
		return nil
	}
	return mount.SetAttr(f, 0, 0, o.Propagation, o.PropagationRec)
}

func (c *creation) bind(m specs.Mount, dst string, o mount.Options) error {
	if m.Source == "" {
		return errdefs.New(errdefs.InvalidParameter, "bind mount without a source")
	}
	src := m.Source
	if !filepath.IsAbs(src) {
		src = filepath.Join(c.b.Dir, src)
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
	// Unless asked for, nothing that is mounted in the container appears on the host.
	propagation, recursive := o.Propagation, o.PropagationRec
	if propagation != mount.Private || !recursive {
		base := mount.Private
		if propagation == mount.Shared || propagation == mount.Slave {
			base = propagation
			recursive = true
		}
		if err := mount.SetAttr(f, 0, 0, base, true); err != nil {
			return err
		}
		if propagation == mount.Unbindable {
			if err := mount.SetAttr(f, 0, 0, propagation, recursive); err != nil {
				return err
			}
		}
		propagation = 0
	}
	if o.Set|o.Clear != 0 || propagation != 0 && !recursive {
		if err := mount.SetAttr(f, o.Set, o.Clear, 0, false); err != nil {
			return err
		}
	}
	if o.RecSet|o.RecClear != 0 || propagation != 0 {
		return mount.SetAttr(f, o.RecSet, o.RecClear, propagation, true)
	}
	return nil
}

func (c *creation) tmpfs(root *os.File, m specs.Mount, dst string, o mount.Options) error {
	if o.CopyUp {
		return errdefs.New(errdefs.NotImplemented, "option tmpcopyup is not supported")
	}
	dev := dst == "/dev"
	options := slices.DeleteFunc(slices.Clone(m.Options), func(s string) bool { return s == "ro" }) // when all is in it
	if !slices.ContainsFunc(options, func(s string) bool { return strings.HasPrefix(s, "mode=") }) {
		// As with mount(8) in a container's own hands: what is at the place decides.
		if d, err := safepath.Open(root, dst, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0); err == nil {
			if st, err := d.Stat(); err == nil {
				mode := uint32(st.Mode().Perm())
				if st.Mode()&os.ModeSticky != 0 {
					mode |= 0o1000
				}
				options = append(options, fmt.Sprintf("mode=%o", mode))
			}
			d.Close()
		}
	}
	f, err := mount.FS("tmpfs", cmp.Or(m.Source, "tmpfs"), options)
	if err != nil {
		return err
	}
	c.add(dst, f, false)
	if dev {
		if err := c.fillDev(f); err != nil {
			return err
		}
	}
	c.in.Mounts[len(c.in.Mounts)-1].Late = o.Set&mount.ReadOnly != 0
	return c.propagate(f, o)
}

// fillDev makes what belongs in /dev: the devices, the usual links, and places for the mounts and the console to come.
func (c *creation) fillDev(dev *os.File) error {
	const rw = 0o666
	devices := []specs.LinuxDevice{
		{Path: "/dev/null", Major: 1, Minor: 3}, {Path: "/dev/zero", Major: 1, Minor: 5}, {Path: "/dev/full", Major: 1, Minor: 7},
		{Path: "/dev/random", Major: 1, Minor: 8}, {Path: "/dev/urandom", Major: 1, Minor: 9}, {Path: "/dev/tty", Major: 5, Minor: 0},
	}
	made := map[string]bool{}
	for _, d := range devices {
		name := path.Base(d.Path)
		if err := safepath.Mknod(dev, name, syscall.S_IFCHR|rw, safepath.Device(d.Major, d.Minor)); err != nil {
			return err
		}
		made[name] = true
	}
	for _, d := range c.b.Spec.Linux.Devices {
		name, ok := strings.CutPrefix(path.Clean("/"+d.Path), "/dev/")
		if !ok {
			return errdefs.New(errdefs.NotImplemented, "device %s is not below /dev", d.Path)
		}
		if made[name] || name == "console" && c.b.Spec.Process.Terminal {
			continue
		}
		made[name] = true
		if err := makeDevice(dev, name, d); err != nil {
			return fmt.Errorf("device %s: %w", d.Path, err)
		}
	}
	for _, link := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}, {"core", "/proc/kcore"}} {
		if made[link[0]] {
			continue
		}
		if err := safepath.Symlink(dev, link[0], link[1]); err != nil {
			return err
		}
	}
	for _, m := range c.b.Spec.Mounts {
		name, ok := strings.CutPrefix(path.Clean("/"+m.Destination), "/dev/")
		if !ok || m.Type == "bind" || m.Type == "none" || strings.Contains(name, "/") {
			continue
		}
		d, err := safepath.MkdirAll(dev, name, 0o755)
		if err != nil {
			return err
		}
		d.Close()
	}
	if c.b.Spec.Process.Terminal {
		return safepath.Mknod(dev, "console", syscall.S_IFREG|0o620, 0)
	}
	return nil
}

func makeDevice(dev *os.File, name string, d specs.LinuxDevice) error {
	kinds := map[string]uint32{"c": syscall.S_IFCHR, "u": syscall.S_IFCHR, "b": syscall.S_IFBLK, "p": syscall.S_IFIFO}
	kind, ok := kinds[d.Type]
	if !ok {
		return errdefs.New(errdefs.InvalidParameter, "type %q is unknown", d.Type)
	}
	at := dev
	if dir, base := path.Split(name); dir != "" {
		sub, err := safepath.MkdirAll(dev, dir, 0o755)
		if err != nil {
			return err
		}
		defer sub.Close()
		at, name = sub, base
	}
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(d.FileMode.Perm())
	}
	if err := safepath.Mknod(at, name, kind|mode, safepath.Device(d.Major, d.Minor)); err != nil {
		return err
	}
	if d.UID == nil && d.GID == nil {
		return nil
	}
	uid, gid := 0, 0
	if d.UID != nil {
		uid = int(*d.UID)
	}
	if d.GID != nil {
		gid = int(*d.GID)
	}
	return safepath.Chown(at, name, uid, gid)
}

// cgroupMount shows the container its own cgroup: the unified hierarchy by one mount, the separate ones of v1 by one each in a
// tmpfs. They are copies of the cgroup's own directories, so that with a cgroup namespace or without there is nothing above to see.
func (c *creation) cgroupMount(dst string, o mount.Options) error {
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
		c.in.Mounts[len(c.in.Mounts)-1].There = true
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
	for _, p := range l.MaskedPaths {
		st, err := os.Stat(p) // the host's only hints at the container's
		c.in.Masked = append(c.in.Masked, initproc.Masked{Path: p, Dir: err == nil && st.IsDir()})
	}
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
