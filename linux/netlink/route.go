package netlink

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Addr is an address of a device, with the length of its subnet's prefix.
type Addr struct {
	Index  int // the device's
	Prefix netip.Prefix
}

// Route is an entry of the main routing table.
type Route struct {
	Dst     netip.Prefix // zero bits: the default route
	Gateway netip.Addr   // zero: directly on the device
	Index   int          // the device's
	Table   int
}

const sizeofIfaddrmsg = 8

// NewAddr gives the device an address; one it already has is replaced.
func NewAddr(a Addr) Message {
	m := addrMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a)
	if a.Prefix.Addr().Is4() && a.Prefix.Bits() < 31 {
		m.Attr(unix.IFA_BROADCAST, last(a.Prefix).AsSlice())
	}
	return m
}

// DelAddr takes an address from the device.
func DelAddr(a Addr) Message { return addrMessage(unix.RTM_DELADDR, 0, a) }

func addrMessage(kind, flags uint16, a Addr) Message {
	b := make([]byte, sizeofIfaddrmsg, 64)
	b[0] = family(a.Prefix.Addr())
	b[1] = byte(a.Prefix.Bits())
	if a.Prefix.Addr().Is6() {
		b[2] = unix.IFA_F_NODAD // the address plan knows that nobody else has it
	}
	binary.NativeEndian.PutUint32(b[4:], uint32(a.Index))
	m := Message{Type: kind, Flags: flags, Body: b}
	m.Attr(unix.IFA_LOCAL, a.Prefix.Addr().AsSlice())
	m.Attr(unix.IFA_ADDRESS, a.Prefix.Addr().AsSlice())
	return m
}

// Addrs returns the addresses of the device with that index; of all devices for 0.
func (c *Conn) Addrs(index int) ([]Addr, error) {
	b := make([]byte, sizeofIfaddrmsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	var addrs []Addr
	err := c.Dump(Message{Type: unix.RTM_GETADDR, Body: b}, func() { addrs = nil }, func(r Reply) error {
		if len(r.Body) < sizeofIfaddrmsg {
			return errors.New("netlink: address message is too short")
		}
		a := Addr{Index: int(binary.NativeEndian.Uint32(r.Body[4:]))}
		var ip netip.Addr
		if err := Attrs(r.Body[sizeofIfaddrmsg:], func(kind uint16, v []byte) {
			if kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && !ip.IsValid() {
				ip, _ = netip.AddrFromSlice(v)
			}
		}); err != nil {
			return err
		}
		if ip.IsValid() && (index == 0 || a.Index == index) {
			a.Prefix = netip.PrefixFrom(ip, int(r.Body[1]))
			addrs = append(addrs, a)
		}
		return nil
	})
	return addrs, err
}

// NewRoute adds a route to the main table, in place of one to the same destination.
func NewRoute(r Route) Message {
	return routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r)
}

// DelRoute removes a route from the main table.
func DelRoute(r Route) Message { return routeMessage(unix.RTM_DELROUTE, 0, r) }

func routeMessage(kind, flags uint16, r Route) Message {
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if !r.Gateway.IsValid() {
		scope = unix.RT_SCOPE_LINK
	}
	// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
	b := make([]byte, unix.SizeofRtMsg, 64)
	b[0], b[1] = family(r.Dst.Addr()), byte(r.Dst.Bits())
	b[4], b[5], b[6], b[7] = unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST
	m := Message{Type: kind, Flags: flags, Body: b}
	if r.Dst.Bits() > 0 {
		m.Attr(unix.RTA_DST, r.Dst.Addr().AsSlice())
	}
	if r.Gateway.IsValid() {
		m.Attr(unix.RTA_GATEWAY, r.Gateway.AsSlice())
	}
	m.Uint32(unix.RTA_OIF, uint32(r.Index))
	return m
}

// Routes returns the unicast routes of all tables.
func (c *Conn) Routes() ([]Route, error) {
	var routes []Route
	err := c.Dump(Message{Type: unix.RTM_GETROUTE, Body: make([]byte, unix.SizeofRtMsg)}, func() { routes = nil }, func(reply Reply) error {
		b := reply.Body
		if len(b) < unix.SizeofRtMsg {
			return errors.New("netlink: route message is too short")
		}
		if b[7] != unix.RTN_UNICAST {
			return nil
		}
		dst := netip.IPv4Unspecified()
		if b[0] == unix.AF_INET6 {
			dst = netip.IPv6Unspecified()
		}
		r := Route{Table: int(b[4])}
		if err := Attrs(b[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.RTA_DST:
				dst, _ = netip.AddrFromSlice(v)
			case unix.RTA_GATEWAY:
				r.Gateway, _ = netip.AddrFromSlice(v)
			case unix.RTA_OIF:
				r.Index = number(v)
			case unix.RTA_TABLE:
				r.Table = number(v)
			}
		}); err != nil {
			return err
		}
		r.Dst = netip.PrefixFrom(dst, int(b[1]))
		routes = append(routes, r)
		return nil
	})
	return routes, err
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// last returns the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
