package oci

import (
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/safepath"
	"gantry/oci/initproc"
)

// devLinks are the usual links in /dev.
func devLinks() [][2]string {
	return [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}, {"core", "/proc/kcore"}}
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
		host := path.Clean("/" + d.Path)
		name, ok := strings.CutPrefix(host, "/dev/")
		if !ok {
			return errdefs.New(errdefs.NotImplemented, "linux.devices[%d]: %s is not below /dev", i, d.Path)
		}
		if _, err := os.Stat(host); err != nil {
			return errdefs.New(errdefs.InvalidParameter, "linux.devices[%d]: without root's rights a device must be the host's of that name: %w", i, err)
		}
		add(name, host)
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
		if err := c.giveToRoot(dev, name); err != nil {
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
