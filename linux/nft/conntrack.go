package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"gantry/linux/netlink"

	"golang.org/x/sys/unix"
)

// ctnetlink's messages and attributes (linux/netfilter/nfnetlink_conntrack.h).
const (
	conntrackGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	conntrackDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	attrTupleOrig  = 1
	attrID         = 12
	attrTupleProto = 2
	attrProtoNum   = 1
	attrDstPort    = 3
)

// Forget makes the kernel forget the connections of a protocol whose first packet went to one of the ports. For
// protocols without an end, such as UDP, what was decided for a first packet would otherwise hold as long as more come.
func (c *Conn) Forget(protocol uint8, ports map[uint16]bool) error {
	var found []netlink.Message
	list := netlink.Message{Type: conntrackGet, Body: make([]byte, 4)} // nfgenmsg of any family
	err := c.nl.Dump(list, func() { found = nil }, func(r netlink.Reply) error {
		if len(r.Body) < 4 {
			return errors.New("conntrack: message is too short")
		}
		number, port := uint8(0), uint16(0)
		m := netlink.Message{Type: conntrackDelete, Body: []byte{r.Body[0], 0, 0, 0}}
		err := netlink.Attrs(r.Body[4:], func(kind uint16, v []byte) {
			switch kind {
			case attrTupleOrig:
				number, port = destination(v)
				m.Attr(kind|unix.NLA_F_NESTED, v)
			case attrID:
				m.Attr(kind, v)
			}
		})
		if err == nil && number == protocol && ports[port] {
			found = append(found, m)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	for _, m := range found {
		if err := c.nl.Do(m); err != nil && !errors.Is(err, unix.ENOENT) { // ended meanwhile
			return fmt.Errorf("forget connection: %w", err)
		}
	}
	return nil
}

// destination returns protocol and destination port of a tuple.
func destination(tuple []byte) (protocol uint8, port uint16) {
	_ = netlink.Attrs(tuple, func(kind uint16, v []byte) { // what does not parse has no port
		if kind != attrTupleProto {
			return
		}
		_ = netlink.Attrs(v, func(kind uint16, v []byte) {
			switch {
			case kind == attrProtoNum && len(v) >= 1:
				protocol = v[0]
			case kind == attrDstPort && len(v) >= 2:
				port = binary.BigEndian.Uint16(v)
			}
		})
	})
	return protocol, port
}
