package oci

import (
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/mount"
	"gantry/linux/safepath"
	"gantry/oci/initproc"
)

// devLinks are the usual links in /dev.
func devLinks() [][2]string {
	return [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}, {"core", "/proc/kcore"}}
}

// defaultDevices are in every container.
func defaultDevices() []specs.LinuxDevice {
	list := []specs.LinuxDevice{
		{Path: "/dev/null", Major: 1, Minor: 3}, {Path: "/dev/zero", Major: 1, Minor: 5}, {Path: "/dev/full", Major: 1, Minor: 7},
		{Path: "/dev/random", Major: 1, Minor: 8}, {Path: "/dev/urandom", Major: 1, Minor: 9}, {Path: "/dev/tty", Major: 5, Minor: 0},
	}
	for i := range list {
		list[i].Type = "c"
	}
	return list
}

// inDev returns the name of a device in /dev.
func inDev(d specs.LinuxDevice) (name string, ok bool) {
	return strings.CutPrefix(path.Clean("/"+d.Path), "/dev/")
}

// hostDevice checks that the host has the i-th device: what cannot be made is bound from there.
func hostDevice(i int, d specs.LinuxDevice) error {
	if _, err := os.Stat(path.Clean("/" + d.Path)); err != nil {
		return errdefs.New(errdefs.InvalidParameter, "linux.devices[%d]: in a user namespace and without root's rights a device must be the host's of that name: %w", i, err)
	}
	return nil
}

// nodes prepares the devices that do not belong in the tmpfs at /dev: those elsewhere, and all of them when nothing is mounted there, for
// which the root file system's own /dev gets the usual links, too. Who mounts a directory at /dev gets none, as what is in it is the host's.
func (c *creation) nodes() error {
	l := c.b.Spec.Linux
	var dev *specs.Mount
	for i, m := range c.b.Spec.Mounts {
		if path.Clean("/"+m.Destination) == "/dev" {
			dev = &c.b.Spec.Mounts[i]
		}
	}
	if dev != nil && dev.Type != "tmpfs" {
		return nil
	}
	made := map[string]bool{}
	list := l.Devices
	first := 0 // the number in list of the first that the specification names
	if dev == nil {
		first = len(defaultDevices())
		list = append(defaultDevices(), l.Devices...)
		c.in.Links = devLinks()
	}
	for i, d := range list {
		name, ok := inDev(d)
		dst := path.Clean("/" + d.Path)
		if ok && (dev != nil || name == "ptmx" || name == "console" && c.b.Spec.Process.Terminal) || made[dst] {
			continue
		}
		made[dst] = true
		if err := c.node(i-first, dst, d); err != nil {
			return err
		}
	}
	return nil
}

// node prepares the device at dst.
func (c *creation) node(i int, dst string, d specs.LinuxDevice) error {
	if c.inside || c.maps.on {
		if err := hostDevice(i, d); err != nil {
			return err
		}
		if c.inside {
			c.in.Mounts = append(c.in.Mounts, initproc.Mount{Destination: dst, Bind: dst, File: true})
			return nil
		}
		f, err := mount.Bind(dst, false)
		if err != nil {
			return err
		}
		c.add(dst, f, true)
		return mount.SetAttr(f, 0, 0, mount.Private, false)
	}
	n := initproc.Node{Path: dst, Mode: deviceMode(d), Device: safepath.Device(d.Major, d.Minor)}
	if d.UID != nil {
		n.UID = int(*d.UID)
	}
	if d.GID != nil {
		n.GID = int(*d.GID)
	}
	c.in.Nodes = append(c.in.Nodes, n)
	return nil
}

// deviceMode returns the type and the permissions of a device.
func deviceMode(d specs.LinuxDevice) uint32 {
	kinds := map[string]uint32{"c": syscall.S_IFCHR, "u": syscall.S_IFCHR, "b": syscall.S_IFBLK, "p": syscall.S_IFIFO}
	if d.FileMode == nil {
		return kinds[d.Type] | 0o666
	}
	return kinds[d.Type] | uint32(d.FileMode.Perm())
}

// bindDev has a /dev filled by the child, which cannot make devices, but bind the host's.
func (c *creation) bindDev(dev *initproc.Mount) error {
	made := map[string]bool{}
	add := func(name, host string) {
		if !made[name] {
			made[name] = true
			dev.Devices = append(dev.Devices, initproc.Device{Name: name, Host: host})
		}
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		add(name, "/dev/"+name)
	}
	for i, d := range c.b.Spec.Linux.Devices {
		name, ok := inDev(d)
		if !ok {
			continue
		}
		if err := hostDevice(i, d); err != nil {
			return err
		}
		add(name, "/dev/"+name)
	}
	for _, l := range devLinks() {
		if !made[l[0]] {
			dev.Links = append(dev.Links, l)
		}
	}
	return nil
}

// fillDev makes what belongs in /dev: the devices, the usual links, and places for the mounts and the console to come.
func (c *creation) fillDev(dev *os.File) error {
	made := map[string]bool{}
	for _, d := range defaultDevices() {
		name := path.Base(d.Path)
		if err := safepath.Mknod(dev, name, deviceMode(d), safepath.Device(d.Major, d.Minor)); err != nil {
			return err
		}
		if err := c.giveToRoot(dev, name); err != nil {
			return err
		}
		made[name] = true
	}
	for _, d := range c.b.Spec.Linux.Devices {
		name, ok := inDev(d)
		if !ok || made[name] || name == "console" && c.b.Spec.Process.Terminal {
			continue
		}
		made[name] = true
		if err := c.makeDevice(dev, name, d); err != nil {
			return fmt.Errorf("device %s: %w", d.Path, err)
		}
	}
	for _, link := range devLinks() {
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

// giveToRoot gives name in dev to the container's root.
func (c *creation) giveToRoot(dev *os.File, name string) error {
	if !c.maps.on {
		return nil
	}
	uid, gid, err := c.maps.ids(0, 0)
	if err != nil {
		return err
	}
	return safepath.Chown(dev, name, int(uid), int(gid))
}

func (c *creation) makeDevice(dev *os.File, name string, d specs.LinuxDevice) error {
	at := dev
	if dir, base := path.Split(name); dir != "" {
		sub, err := safepath.MkdirAll(dev, dir, 0o755)
		if err != nil {
			return err
		}
		defer sub.Close()
		at, name = sub, base
	}
	if err := safepath.Mknod(at, name, deviceMode(d), safepath.Device(d.Major, d.Minor)); err != nil {
		return err
	}
	if d.UID == nil && d.GID == nil && !c.maps.on {
		return nil
	}
	var uid, gid uint32
	if d.UID != nil {
		uid = *d.UID
	}
	if d.GID != nil {
		gid = *d.GID
	}
	uid, gid, err := c.maps.ids(uid, gid)
	if err != nil {
		return err
	}
	return safepath.Chown(at, name, int(uid), int(gid))
}
