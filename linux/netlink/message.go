package netlink

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

const attrTypeMask = 0x3fff // NLA_TYPE_MASK: without NLA_F_NESTED and NLA_F_NET_BYTEORDER

// Message is one netlink request: a type, flags and a body of a fixed header and attributes.
type Message struct {
	Type  uint16
	Flags uint16 // NLM_F_REQUEST is added when it is sent
	Body  []byte
}

// Attr appends an attribute: a 4 byte header in host order, the value, padding to 4 bytes.
func (m *Message) Attr(kind uint16, value []byte) {
	m.Body = AppendAttr(m.Body, kind, value)
}

// Uint32 appends an attribute in host byte order.
func (m *Message) Uint32(kind uint16, value uint32) {
	m.Body = AppendAttr(m.Body, kind, binary.NativeEndian.AppendUint32(nil, value))
}

// String appends a NUL-terminated attribute.
func (m *Message) String(kind uint16, value string) {
	m.Body = AppendAttr(m.Body, kind, append([]byte(value), 0))
}

// Nest appends an attribute whose value is what fill appends.
func (m *Message) Nest(kind uint16, fill func(*Message)) {
	start := len(m.Body)
	m.Body = append(m.Body, 0, 0, 0, 0)
	fill(m)
	binary.NativeEndian.PutUint16(m.Body[start:], uint16(len(m.Body)-start))
	binary.NativeEndian.PutUint16(m.Body[start+2:], kind|unix.NLA_F_NESTED)
}

// AppendAttr appends one attribute to b.
func AppendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Attrs calls f for each attribute in b, with the flags taken off its kind.
func Attrs(b []byte, f func(kind uint16, value []byte)) error {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			return fmt.Errorf("netlink attribute of %d bytes in %d", size, len(b))
		}
		f(binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[4:size])
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

// append encodes the message with its header behind b.
func (m Message) append(b []byte, seq uint32, flags uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(m.Body)))
	b = binary.NativeEndian.AppendUint16(b, m.Type)
	b = binary.NativeEndian.AppendUint16(b, m.Flags|flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, m.Body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Reply is one message from the kernel.
type Reply struct {
	Type  uint16
	Flags uint16
	Seq   uint32
	Port  uint32 // of the socket whose request this answers or announces
	Body  []byte
}

// parse cuts what one read returned into messages.
func parse(b []byte) ([]Reply, error) {
	var replies []Reply
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return nil, fmt.Errorf("netlink message of %d bytes in %d", size, len(b))
		}
		replies = append(replies, Reply{
			Type:  binary.NativeEndian.Uint16(b[4:]),
			Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq:   binary.NativeEndian.Uint32(b[8:]),
			Port:  binary.NativeEndian.Uint32(b[12:]),
			Body:  b[unix.NLMSG_HDRLEN:size],
		})
		b = b[min((size+3)&^3, len(b)):]
	}
	return replies, nil
}
