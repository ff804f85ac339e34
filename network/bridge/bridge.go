// Package bridge makes the devices of bridge networks: the bridge on the host, and for each endpoint a pair of veth
// devices, one a port of the bridge and the other inside the sandbox's namespace.
package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"gantry/errdefs"
	"gantry/linux/netlink"
	"gantry/linux/netns"
)

// Config describes a bridge.
type Config struct {
	Name     string
	MTU      int
	Gateway4 netip.Prefix // the bridge's own address; zero: none
	Gateway6 netip.Prefix
	Isolated bool // ports do not reach each other
	Localnet bool // connections from the host's 127.0.0.1 may be redirected to ports
	Owner    string
}

// Device is a bridge that exists.
type Device struct {
	Config
	Created bool // by Ensure, now or in an earlier life; false for one that the administrator made

	index atomic.Int64
}

// Index returns the kernel's number of the device.
func (d *Device) Index() int { return int(d.index.Load()) }

const aliasPrefix = "gantry:"

// Ensure makes the bridge, or takes one that is there, and gives it its addresses. The caller holds the Lock of a name that
// other daemons may want.
func Ensure(nl *netlink.Conn, c Config) (*Device, error) {
	d := &Device{Config: c}
	if err := d.ensure(nl); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Device) ensure(nl *netlink.Conn) error {
	c, alias := d.Config, aliasPrefix+d.Owner
	link, err := nl.LinkByName(c.Name)
	switch {
	case errdefs.Is(err, errdefs.NotFound):
		if err := nl.Do(netlink.NewBridge(netlink.Bridge{Name: c.Name, MAC: mac(c), MTU: c.MTU}), netlink.SetAlias(c.Name, alias)); err != nil {
			return fmt.Errorf("create bridge %s: %w", c.Name, err)
		}
		if link, err = nl.LinkByName(c.Name); err != nil {
			return fmt.Errorf("create bridge %s: %w", c.Name, err)
		}
		d.Created = true
	case err != nil:
		return fmt.Errorf("look for bridge %s: %w", c.Name, err)
	case link.Kind != "bridge":
		return errdefs.New(errdefs.Conflict, "device %s exists and is not a bridge", c.Name)
	default:
		if strings.HasPrefix(link.Alias, aliasPrefix) && link.Alias != alias {
			// Its daemon is gone, for we hold the name; so are the daemon's records.
			if err := nl.Do(netlink.SetAlias(c.Name, alias)); err != nil {
				return fmt.Errorf("take over bridge %s: %w", c.Name, err)
			}
			link.Alias = alias
		}
		d.Created = link.Alias == alias
	}
	d.index.Store(int64(link.Index))
	if err := d.address(nl, link.Up); err != nil {
		return errors.Join(fmt.Errorf("set up bridge %s: %w", c.Name, err), d.removeNew(nl, link))
	}
	return nil
}

// removeNew undoes a creation that Ensure could not complete.
func (d *Device) removeNew(nl *netlink.Conn, link netlink.Link) error {
	if d.Created && link.Alias == "" {
		return nl.Do(netlink.DelLink(d.Index()))
	}
	return nil
}

func (d *Device) address(nl *netlink.Conn, up bool) error {
	have, err := nl.Addrs(d.Index())
	if err != nil {
		return err
	}
	var requests []netlink.Message
	if !up {
		requests = append(requests, netlink.SetUp(d.Index()))
	}
	for _, want := range []netip.Prefix{d.Gateway4, d.Gateway6} {
		if !want.IsValid() {
			continue
		}
		found := false
		for _, a := range have {
			found = found || a.Prefix == want
			if d.Created && a.Prefix != want && a.Prefix.Addr().Is4() && want.Addr().Is4() {
				requests = append(requests, netlink.DelAddr(a)) // of an earlier configuration
			}
		}
		if !found {
			requests = append(requests, netlink.NewAddr(netlink.Addr{Index: d.Index(), Prefix: want}))
		}
	}
	if err := nl.Do(requests...); err != nil {
		return err
	}
	if d.Localnet {
		return Sysctl("ipv4/conf/"+d.Name+"/route_localnet", "1")
	}
	return nil
}

// Address returns the first IPv4 address of a device that is there; zero when there is none.
func Address(nl *netlink.Conn, name string) (netip.Prefix, error) {
	link, err := nl.LinkByName(name)
	if errdefs.Is(err, errdefs.NotFound) {
		return netip.Prefix{}, nil
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	addrs, err := nl.Addrs(link.Index)
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, a := range addrs {
		if a.Prefix.Addr().Is4() {
			return a.Prefix, nil
		}
	}
	return netip.Prefix{}, nil
}

// Remove removes the bridge if Ensure created it. One that is gone is no error.
func (d *Device) Remove(nl *netlink.Conn) error {
	if !d.Created {
		return nil
	}
	link, err := nl.LinkByName(d.Name)
	if errdefs.Is(err, errdefs.NotFound) || err == nil && link.Index != d.Index() {
		return nil
	}
	if err == nil {
		err = nl.Do(netlink.DelLink(d.Index()))
	}
	if err != nil {
		return fmt.Errorf("remove bridge %s: %w", d.Name, err)
	}
	return nil
}

// Rebuild makes the bridge again after somebody changed or removed it.
func (d *Device) Rebuild(nl *netlink.Conn) error { return d.ensure(nl) }

// Adopt makes the near end of a pair of devices a port of the bridge again.
func (d *Device) Adopt(nl *netlink.Conn, hostLink string) error {
	link, err := nl.LinkByName(hostLink)
	if err == nil {
		err = nl.Do(netlink.SetMaster(link.Index, d.Index()), netlink.SetUp(link.Index))
	}
	if err != nil {
		return fmt.Errorf("put veth %s on bridge %s: %w", hostLink, d.Name, err)
	}
	return nil
}

// Port describes one attachment.
type Port struct {
	HostLink  string // name of the bridge's end
	Interface string // name inside the namespace
	MAC       net.HardwareAddr
	IPv4      netip.Prefix
	IPv6      netip.Prefix
	Gateway   netip.Addr // default route; zero: none
	Gateway6  netip.Addr
}

// Attach makes the pair of devices and sets up the inner one, up and with addresses and routes.
func (d *Device) Attach(nl *netlink.Conn, ns *os.File, p Port) error {
	requests := []netlink.Message{
		netlink.NewVeth(netlink.Veth{Name: p.HostLink, Master: d.Index(), MTU: d.MTU, PeerName: p.Interface, PeerMAC: p.MAC, PeerNS: ns}),
		netlink.WithoutIPv6(p.HostLink),
	}
	if hairpin := filtered(); d.Isolated || hairpin {
		requests = append(requests, netlink.BridgePort(p.HostLink, d.Isolated, hairpin))
	}
	if err := nl.Do(requests...); err != nil {
		return fmt.Errorf("create veth %s on bridge %s: %w", p.HostLink, d.Name, err)
	}
	if err := Inside(ns, func(in *netlink.Conn) error { return configure(in, p) }); err != nil {
		return fmt.Errorf("set up %s of veth %s: %w", p.Interface, p.HostLink, errors.Join(err, Detach(nl, p.HostLink)))
	}
	// From Linux 6.9 on a question about a device waits until the kernel has noticed its carrier; before that the
	// bridge throws away what comes, and the host what goes to a bridge that had no port before.
	for _, name := range []string{p.HostLink, d.Name} {
		if _, err := nl.LinkByName(name); err != nil {
			return fmt.Errorf("look at %s: %w", name, err)
		}
	}
	return nil
}

// filtered reports whether br_netfilter shows bridged packets to the firewall. Then a redirection by it back to the
// sandbox that the packet came from does not leave the bridge, which returns a packet to its port only when told to.
func filtered() bool {
	b, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

func configure(in *netlink.Conn, p Port) error {
	link, err := in.LinkByName(p.Interface)
	if err != nil {
		return err
	}
	var requests []netlink.Message
	if !p.IPv6.IsValid() {
		requests = append(requests, netlink.WithoutIPv6(p.Interface))
	}
	requests = append(requests, netlink.SetUp(link.Index))
	for _, a := range []netip.Prefix{p.IPv4, p.IPv6} {
		if a.IsValid() {
			requests = append(requests, netlink.NewAddr(netlink.Addr{Index: link.Index, Prefix: a}))
		}
	}
	requests = append(requests, defaults(link.Index, p.Gateway, p.Gateway6)...)
	return in.Do(requests...)
}

func defaults(index int, gateways ...netip.Addr) []netlink.Message {
	var requests []netlink.Message
	for _, g := range gateways {
		if g.IsValid() {
			requests = append(requests, netlink.NewRoute(netlink.Route{Dst: anywhere(g), Gateway: g, Index: index}))
		}
	}
	return requests
}

func anywhere(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// Route makes the namespace's default routes lead through the interface; without an interface there are none
// afterwards.
func Route(ns *os.File, iface string, gateways ...netip.Addr) error {
	err := Inside(ns, func(in *netlink.Conn) error {
		routes, err := in.Routes()
		if err != nil {
			return err
		}
		const mainTable = 254
		var requests []netlink.Message
		for _, r := range routes {
			if r.Table == mainTable && r.Dst.Bits() == 0 && r.Gateway.IsValid() {
				requests = append(requests, netlink.DelRoute(r))
			}
		}
		if iface != "" {
			link, err := in.LinkByName(iface)
			if err != nil {
				return err
			}
			requests = append(requests, defaults(link.Index, gateways...)...)
		}
		return in.Do(requests...)
	})
	if err != nil {
		return fmt.Errorf("set default route through %q: %w", iface, err)
	}
	return nil
}

// Loopback switches lo on in the namespace of the calling thread.
func Loopback() error {
	in, err := netlink.DialRoute()
	if err != nil {
		return err
	}
	defer in.Close()
	const lo = 1
	return in.Do(netlink.SetUp(lo))
}

// Detach removes the pair of devices; one that is gone is no error.
func Detach(nl *netlink.Conn, hostLink string) error {
	link, err := nl.LinkByName(hostLink)
	if errdefs.Is(err, errdefs.NotFound) {
		return nil
	}
	if err == nil {
		err = nl.Do(netlink.DelLink(link.Index))
	}
	if err != nil {
		return fmt.Errorf("remove veth %s: %w", hostLink, err)
	}
	return nil
}

// Inside runs f with a socket in the namespace.
func Inside(ns *os.File, f func(*netlink.Conn) error) error {
	var in *netlink.Conn
	if err := netns.Do(ns, func() (err error) { in, err = netlink.DialRoute(); return err }); err != nil {
		return err
	}
	defer in.Close()
	return f(in)
}

// MAC derives a hardware address from an IPv4 address, so that neighbours' caches stay right when the address is used
// again.
func MAC(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

func mac(c Config) net.HardwareAddr {
	if c.Gateway4.IsValid() {
		return MAC(c.Gateway4.Addr())
	}
	b := c.Gateway6.Addr().As16()
	return net.HardwareAddr{0x02, 0x42, b[12], b[13], b[14], b[15]}
}

// Sysctl writes a value under /proc/sys/net of the calling thread's namespace, unless it is there already.
func Sysctl(name, value string) error {
	path := "/proc/sys/net/" + name
	have, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s=%s: %w", strings.ReplaceAll("net/"+name, "/", "."), value, err)
	}
	return nil
}

// MAC6 derives a hardware address from the last bytes of an IPv6 address.
func MAC6(a netip.Addr) net.HardwareAddr {
	b := a.As16()
	return net.HardwareAddr{0x02, 0x42, b[12], b[13], b[14], b[15]}
}
