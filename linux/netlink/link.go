package netlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"

	"gantry/errdefs"

	"golang.org/x/sys/unix"
)

// Link is a network device.
type Link struct {
	Index  int
	Name   string
	Kind   string // "bridge", "veth", ...; "" for hardware
	Master int    // index of the bridge it is a port of; 0: none
	Peer   int    // index of a veth's other end, in that end's namespace; 0: none
	Up     bool
	MTU    int
	MAC    net.HardwareAddr
	Alias  string
}

const (
	inet6AddrGenMode     = 8 // IFLA_INET6_ADDR_GEN_MODE
	inet6AddrGenModeNone = 1
	vethInfoPeer         = 1 // VETH_INFO_PEER
	bridgePortIsolated   = 33
	bridgePortHairpin    = 4
)

// LinkByName returns the device, or an error of kind NotFound.
func (c *Conn) LinkByName(name string) (Link, error) {
	m := linkMessage(unix.RTM_GETLINK, 0, 0, 0)
	m.String(unix.IFLA_IFNAME, name)
	r, err := c.Get(m)
	if err != nil {
		if errors.Is(err, unix.ENODEV) {
			return Link{}, errdefs.New(errdefs.NotFound, "no network device %s", name)
		}
		return Link{}, err
	}
	return parseLink(r.Body)
}

// Links returns all devices; those that are ports of the bridge with index master when that is not 0.
func (c *Conn) Links(master int) ([]Link, error) {
	m := linkMessage(unix.RTM_GETLINK, 0, 0, 0)
	if master != 0 {
		m.Uint32(unix.IFLA_MASTER, uint32(master))
	}
	var links []Link
	err := c.Dump(m, func() { links = nil }, func(r Reply) error {
		l, err := parseLink(r.Body)
		if err == nil && (master == 0 || l.Master == master) {
			links = append(links, l)
		}
		return err
	})
	return links, err
}

// Bridge describes a bridge to make.
type Bridge struct {
	Name  string
	MAC   net.HardwareAddr // fixed, or else it follows the ports'
	MTU   int
	Alias string
}

// NewBridge makes a bridge that is up.
func NewBridge(b Bridge) Message {
	m := linkMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, unix.IFF_UP)
	m.String(unix.IFLA_IFNAME, b.Name)
	m.Attr(unix.IFLA_ADDRESS, b.MAC)
	m.Uint32(unix.IFLA_MTU, uint32(b.MTU))
	m.Nest(unix.IFLA_LINKINFO, func(m *Message) { m.String(unix.IFLA_INFO_KIND, "bridge") })
	return m
}

// Veth describes a pair of devices: one a port of a bridge here, its peer inside another namespace.
type Veth struct {
	Name     string
	Master   int
	MTU      int
	PeerName string
	PeerMAC  net.HardwareAddr
	PeerNS   *os.File
}

// NewVeth makes the pair at once: the near end up and on its bridge, the far end inside the namespace and down. (Moving
// the far end afterwards costs the kernel a grace period of 17 ms.)
func NewVeth(v Veth) Message {
	m := linkMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, unix.IFF_UP)
	m.String(unix.IFLA_IFNAME, v.Name)
	m.Uint32(unix.IFLA_MTU, uint32(v.MTU))
	m.Uint32(unix.IFLA_MASTER, uint32(v.Master))
	m.Nest(unix.IFLA_LINKINFO, func(m *Message) {
		m.String(unix.IFLA_INFO_KIND, "veth")
		m.Nest(unix.IFLA_INFO_DATA, func(m *Message) {
			m.Nest(vethInfoPeer, func(m *Message) {
				m.Body = append(m.Body, make([]byte, unix.SizeofIfInfomsg)...)
				m.String(unix.IFLA_IFNAME, v.PeerName)
				m.Attr(unix.IFLA_ADDRESS, v.PeerMAC)
				m.Uint32(unix.IFLA_MTU, uint32(v.MTU))
				m.Uint32(unix.IFLA_NET_NS_FD, uint32(v.PeerNS.Fd()))
			})
		})
	})
	return m
}

// BridgePort sets what the bridge does with a port: an isolated one reaches no other isolated one, a hairpin one may
// get back what it sent.
func BridgePort(name string, isolated, hairpin bool) Message {
	m := linkMessage(unix.RTM_NEWLINK, 0, 0, 0)
	m.String(unix.IFLA_IFNAME, name)
	m.Nest(unix.IFLA_LINKINFO, func(m *Message) {
		m.String(unix.IFLA_INFO_SLAVE_KIND, "bridge")
		m.Nest(unix.IFLA_INFO_SLAVE_DATA, func(m *Message) {
			m.Attr(bridgePortIsolated, []byte{flag(isolated)})
			m.Attr(bridgePortHairpin, []byte{flag(hairpin)})
		})
	})
	return m
}

// WithoutIPv6 keeps the kernel from giving the device a link-local address. It must be sent before the device is up
// and has a carrier.
func WithoutIPv6(name string) Message {
	m := linkMessage(unix.RTM_NEWLINK, 0, 0, 0)
	m.String(unix.IFLA_IFNAME, name)
	m.Nest(unix.IFLA_AF_SPEC, func(m *Message) {
		m.Nest(unix.AF_INET6, func(m *Message) { m.Attr(inet6AddrGenMode, []byte{inet6AddrGenModeNone}) })
	})
	return m
}

// SetUp switches the device on.
func SetUp(index int) Message { return linkMessage(unix.RTM_NEWLINK, 0, index, unix.IFF_UP) }

// SetDown switches the device off.
func SetDown(index int) Message {
	m := linkMessage(unix.RTM_NEWLINK, 0, index, 0)
	binary.NativeEndian.PutUint32(m.Body[12:], unix.IFF_UP)
	return m
}

// SetMaster makes the device a port of the bridge.
func SetMaster(index, master int) Message {
	m := linkMessage(unix.RTM_NEWLINK, 0, index, 0)
	m.Uint32(unix.IFLA_MASTER, uint32(master))
	return m
}

// SetAlias sets the device's comment.
func SetAlias(name, alias string) Message {
	m := linkMessage(unix.RTM_NEWLINK, 0, 0, 0)
	m.String(unix.IFLA_IFNAME, name)
	m.String(unix.IFLA_IFALIAS, alias)
	return m
}

// DelLink removes the device.
func DelLink(index int) Message { return linkMessage(unix.RTM_DELLINK, 0, index, 0) }

// linkMessage starts a request with its struct ifinfomsg: family, type, index, flags, change mask.
func linkMessage(kind, flags uint16, index int, up uint32) Message {
	b := make([]byte, unix.SizeofIfInfomsg, 256)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], up)
	binary.NativeEndian.PutUint32(b[12:], up)
	return Message{Type: kind, Flags: flags, Body: b}
}

func parseLink(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, errors.New("netlink: link message is too short")
	}
	l := Link{
		Index: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Up:    binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0,
	}
	err := Attrs(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(v)
		case unix.IFLA_IFALIAS:
			l.Alias = text(v)
		case unix.IFLA_ADDRESS:
			l.MAC = append(net.HardwareAddr(nil), v...)
		case unix.IFLA_MTU:
			l.MTU = number(v)
		case unix.IFLA_MASTER:
			l.Master = number(v)
		case unix.IFLA_LINK:
			l.Peer = number(v)
		case unix.IFLA_LINKINFO:
			_ = Attrs(v, func(kind uint16, v []byte) { // what does not parse leaves Kind empty
				if kind == unix.IFLA_INFO_KIND {
					l.Kind = text(v)
				}
			})
		}
	})
	return l, err
}

func text(v []byte) string { return string(bytes.TrimRight(v, "\x00")) }

func number(v []byte) int {
	if len(v) < 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(v)))
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// LinkChange announces what became of a device.
type LinkChange struct {
	Index int
	Gone  bool
	Up    bool // administratively
}

// ListenLinks opens a socket that receives changes of devices in the network namespace of the calling thread.
func ListenLinks() (*Listener, error) { return Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK) }

// LinkChanges waits for changes; see Receive.
func (l *Listener) LinkChanges() (changes []LinkChange, lost bool, err error) {
	replies, lost, err := l.Receive()
	for _, r := range replies {
		if (r.Type != unix.RTM_NEWLINK && r.Type != unix.RTM_DELLINK) || len(r.Body) < unix.SizeofIfInfomsg || r.Body[0] != unix.AF_UNSPEC {
			continue // those of family AF_BRIDGE tell of ports
		}
		changes = append(changes, LinkChange{
			Index: int(int32(binary.NativeEndian.Uint32(r.Body[4:]))),
			Gone:  r.Type == unix.RTM_DELLINK,
			Up:    binary.NativeEndian.Uint32(r.Body[8:])&unix.IFF_UP != 0,
		})
	}
	return changes, lost, err
}
