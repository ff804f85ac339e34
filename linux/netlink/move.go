package netlink

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Move takes the device to another network namespace and gives it a name there, in which "%d" stands for the lowest number that is free.
// Its addresses are lost.
func Move(index int, namespace *os.File, name string) Message {
	m := linkMessage(unix.RTM_NEWLINK, 0, index, 0)
	m.Uint32(unix.IFLA_NET_NS_FD, uint32(namespace.Fd()))
	m.String(unix.IFLA_IFNAME, name)
	return m
}

// Lasting are the addresses of a device that somebody gave it to keep and that mean the same everywhere: permanent, of global scope. They
// come as requests that give them to a device again, with all that belongs to them but a label, which has the device's name.
func (c *Conn) Lasting(index int) ([]func(index int) Message, error) {
	var list []func(index int) Message
	b := make([]byte, sizeofIfaddrmsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	err := c.Dump(Message{Type: unix.RTM_GETADDR, Body: b}, func() { list = nil }, func(r Reply) error {
		if len(r.Body) < sizeofIfaddrmsg {
			return errors.New("netlink: address message is too short")
		}
		flags, scope := uint32(r.Body[2]), r.Body[3]
		type attr struct {
			kind  uint16
			value []byte
		}
		var attrs []attr
		err := Attrs(r.Body[sizeofIfaddrmsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.IFA_FLAGS:
				if len(v) == 4 {
					flags = binary.NativeEndian.Uint32(v)
				}
			case unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_BROADCAST, unix.IFA_RT_PRIORITY, 11: // IFA_PROTO
				attrs = append(attrs, attr{kind, append([]byte{}, v...)})
			}
		})
		if err != nil || int(binary.NativeEndian.Uint32(r.Body[4:])) != index || flags&unix.IFA_F_PERMANENT == 0 || scope != unix.RT_SCOPE_UNIVERSE {
			return err
		}
		flags &= unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_MCAUTOJOIN
		family, bits := r.Body[0], r.Body[1]
		if family == unix.AF_INET6 {
			flags |= unix.IFA_F_NODAD // that nobody else has it was found out when it was given first
		}
		list = append(list, func(index int) Message {
			b := make([]byte, sizeofIfaddrmsg, 128)
			b[0], b[1], b[2], b[3] = family, bits, byte(flags), scope
			binary.NativeEndian.PutUint32(b[4:], uint32(index))
			m := Message{Type: unix.RTM_NEWADDR, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, Body: b}
			m.Uint32(unix.IFA_FLAGS, flags)
			for _, a := range attrs {
				m.Attr(a.kind, a.value)
			}
			return m
		})
		return nil
	})
	return list, err
}
