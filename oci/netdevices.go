package oci

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"gantry/errdefs"
	"gantry/linux/netlink"
	"gantry/linux/netns"
	"gantry/linux/ns"
)

// maxDevices is how many interfaces a container may be given.
const maxDevices = 1024

// validateNetDevices refuses what would leave an interface where it is, or lose it.
func validateNetDevices(l *specs.Linux, have map[specs.LinuxNamespaceType]bool, paths map[specs.LinuxNamespaceType]string) error {
	if len(l.NetDevices) == 0 {
		return nil
	}
	switch {
	case !have[specs.NetworkNamespace] || isOwn(paths[specs.NetworkNamespace], specs.NetworkNamespace):
		return bad("linux.netDevices: the container has no network namespace of its own")
	case !ns.Privileged():
		return errdefs.New(errdefs.NotImplemented, "linux.netDevices: interfaces of the host are moved with root's rights only")
	case len(l.NetDevices) > maxDevices:
		return bad("linux.netDevices: more than %d", maxDevices)
	}
	taken := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(l.NetDevices)) {
		inside := deviceName(name, l.NetDevices[name])
		if !validDevice(name) || strings.ContainsRune(name, '%') {
			return bad("linux.netDevices: %q is not the name of an interface", name)
		}
		template := strings.HasSuffix(inside, "%d")
		if !validDevice(inside) || strings.ContainsRune(strings.TrimSuffix(inside, "%d"), '%') {
			return bad("linux.netDevices.%s.name: %q is not the name of an interface", name, inside)
		}
		if other := taken[inside]; other != "" && !template {
			return bad("linux.netDevices.%s.name: %q is what %s is to be called", name, inside, other)
		}
		taken[inside] = name
	}
	return nil
}

// deviceName is what the interface is called in the container.
func deviceName(host string, d specs.LinuxNetDevice) string {
	if d.Name == "" {
		return host
	}
	return d.Name
}

// validDevice reports whether the kernel takes the name.
func validDevice(name string) bool {
	return name != "" && len(name) <= 15 && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r\x00")
}

// moveDevices gives the container those of the host's interfaces that the specification names, with their lasting addresses, and up. On
// error they are back. When the container's namespace ends the kernel gives hardware back to the host and ends what is virtual.
func (c *Container) moveDevices() error {
	devices := c.spec.Linux.NetDevices
	inside, err := netns.OfProcess(c.init.Pid)
	if err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	defer inside.Close()
	outside, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	defer outside.Close()
	var host, container *netlink.Conn
	if host, err = netlink.DialRoute(); err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	defer host.Close()
	if err := netns.Do(inside, func() (err error) { container, err = netlink.DialRoute(); return err }); err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	defer container.Close()
	var back []func() error
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		undo, err := moveDevice(host, container, inside, outside, name, deviceName(name, devices[name]))
		if undo != nil {
			back = append(back, undo)
		}
		if err != nil {
			err = fmt.Errorf("linux.netDevices.%s: %w", name, err)
			for _, undo := range slices.Backward(back) {
				err = errors.Join(err, undo())
			}
			return err
		}
	}
	return nil
}

// moveDevice moves one interface from one namespace to another, and returns what moves it back.
func moveDevice(from, to *netlink.Conn, inside, outside *os.File, name, newName string) (undo func() error, err error) {
	link, err := from.LinkByName(name)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(newName, "%") {
		if _, err := to.LinkByName(newName); err == nil {
			return nil, errdefs.New(errdefs.InvalidParameter, "there is an interface %s in the container's network namespace", newName)
		} else if !errdefs.Is(err, errdefs.NotFound) {
			return nil, err
		}
	}
	addresses, err := from.Lasting(link.Index)
	if err != nil {
		return nil, err
	}
	before, err := to.Links(0)
	if err != nil {
		return nil, err
	}
	if err := from.Do(netlink.SetDown(link.Index)); err != nil {
		return nil, err
	}
	if err := from.Do(netlink.Move(link.Index, inside, newName)); err != nil {
		if link.Up {
			err = errors.Join(err, from.Do(netlink.SetUp(link.Index)))
		}
		return nil, err
	}
	after, err := to.Links(0)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(after, func(l netlink.Link) bool {
		return !slices.ContainsFunc(before, func(b netlink.Link) bool { return b.Index == l.Index })
	})
	if i < 0 {
		return nil, errors.New("it has not come to the container")
	}
	index := after[i].Index
	settle := func(conn *netlink.Conn, index int, up bool) error {
		var requests []netlink.Message
		for _, a := range addresses {
			requests = append(requests, a(index))
		}
		if up {
			requests = append(requests, netlink.SetUp(index))
		}
		if len(requests) == 0 {
			return nil
		}
		return conn.Do(requests...)
	}
	undo = func() error {
		if err := to.Do(netlink.Move(index, outside, name)); err != nil {
			return err
		}
		l, err := from.LinkByName(name)
		if err != nil {
			return err
		}
		return settle(from, l.Index, link.Up)
	}
	return undo, settle(to, index, true)
}
