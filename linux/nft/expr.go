package nft

import (
	"encoding/binary"

	"gantry/linux/netlink"

	"golang.org/x/sys/unix"
)

// Expr is one step of a rule: it loads, compares, looks up, translates or decides. A rule's steps run in order, until one
// does not match.
type Expr struct {
	name string
	data []byte // the attributes inside NFTA_EXPR_DATA
}

// Reg is a register of four bytes; longer values take the following ones too.
type Reg uint32

// R0 is the first of sixteen registers.
const R0 Reg = unix.NFT_REG32_00

// The loads. Each puts one value into a register, in network byte order where the value has one.

// Protocol loads NFPROTO_IPV4 or NFPROTO_IPV6 (one byte).
func Protocol(to Reg) Expr { return meta(unix.NFT_META_NFPROTO, to) }

// L4Protocol loads IPPROTO_TCP and the like (one byte).
func L4Protocol(to Reg) Expr { return meta(unix.NFT_META_L4PROTO, to) }

// InputName loads the name of the device that a packet came from (16 bytes, NUL-padded).
func InputName(to Reg) Expr { return meta(unix.NFT_META_IIFNAME, to) }

// OutputName loads the name of the device that a packet leaves by (16 bytes, NUL-padded).
func OutputName(to Reg) Expr { return meta(unix.NFT_META_OIFNAME, to) }

// SourceAddr4 loads the IPv4 source address.
func SourceAddr4(to Reg) Expr { return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 12, 4, to) }

// DestinationAddr4 loads the IPv4 destination address.
func DestinationAddr4(to Reg) Expr { return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 4, to) }

// SourceAddr6 loads the IPv6 source address (16 bytes).
func SourceAddr6(to Reg) Expr { return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 16, to) }

// DestinationAddr6 loads the IPv6 destination address (16 bytes).
func DestinationAddr6(to Reg) Expr { return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 16, to) }

// DestinationPort loads the destination port of TCP, UDP and SCTP (two bytes).
func DestinationPort(to Reg) Expr { return payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, to) }

// ConntrackState loads the bit mask of the connection's state (four bytes, host order).
func ConntrackState(to Reg) Expr { return conntrack(unix.NFT_CT_STATE, to) }

// ConntrackStatus loads the bit mask IPS_* of the connection (four bytes, host order).
func ConntrackStatus(to Reg) Expr { return conntrack(unix.NFT_CT_STATUS, to) }

// DestinationType loads the routing type RTN_* of the destination address (four bytes, host order).
func DestinationType(to Reg) Expr {
	var m netlink.Message
	big(&m, unix.NFTA_FIB_DREG, uint32(to))
	big(&m, unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
	big(&m, unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
	return Expr{"fib", m.Body}
}

// Bits of ConntrackState and ConntrackStatus, and routing types.
const (
	StateEstablished = 1 << 1
	StateRelated     = 1 << 2
	StatusDNAT       = 1 << 5
	TypeLocal        = unix.RTN_LOCAL
)

// Equal goes on when the register holds the value.
func Equal(reg Reg, value []byte) Expr { return compare(unix.NFT_CMP_EQ, reg, value) }

// NotEqual goes on when the register holds something else.
func NotEqual(reg Reg, value []byte) Expr { return compare(unix.NFT_CMP_NEQ, reg, value) }

// And keeps the bits of the register that mask has.
func And(reg Reg, mask []byte) Expr {
	var m netlink.Message
	big(&m, unix.NFTA_BITWISE_SREG, uint32(reg))
	big(&m, unix.NFTA_BITWISE_DREG, uint32(reg))
	big(&m, unix.NFTA_BITWISE_LEN, uint32(len(mask)))
	m.Nest(unix.NFTA_BITWISE_MASK, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, mask) })
	m.Nest(unix.NFTA_BITWISE_XOR, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, make([]byte, len(mask))) })
	return Expr{"bitwise", m.Body}
}

// In goes on when the set has the key that starts at the register.
func In(set string, key Reg) Expr { return lookup(set, key, 0) }

// Map goes on when the map has the key, and puts its value into the register to.
func Map(set string, key, to Reg) Expr { return lookup(set, key, to) }

// Load puts a constant into a register.
func Load(to Reg, value []byte) Expr {
	var m netlink.Message
	big(&m, unix.NFTA_IMMEDIATE_DREG, uint32(to))
	m.Nest(unix.NFTA_IMMEDIATE_DATA, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, value) })
	return Expr{"immediate", m.Body}
}

// DNAT4 sends the connection to the IPv4 address and port in the registers.
func DNAT4(addr, port Reg) Expr { return dnat(unix.NFPROTO_IPV4, addr, port) }

// DNAT6 sends the connection to the IPv6 address and port in the registers.
func DNAT6(addr, port Reg) Expr { return dnat(unix.NFPROTO_IPV6, addr, port) }

// Masquerade gives the connection the address of the device that it leaves by.
func Masquerade() Expr { return Expr{"masq", nil} }

// Accept ends the chain of this hook and lets the packet pass.
func Accept() Expr { return verdict(1) } // NF_ACCEPT

// Drop throws the packet away.
func Drop() Expr { return verdict(0) } // NF_DROP

// Name16 is a device's name as the registers hold it.
func Name16(name string) []byte { return append([]byte(name), make([]byte, 16-min(16, len(name)))...) }

// Native32 is a number in host byte order.
func Native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func meta(key uint32, to Reg) Expr {
	var m netlink.Message
	big(&m, unix.NFTA_META_DREG, uint32(to))
	big(&m, unix.NFTA_META_KEY, key)
	return Expr{"meta", m.Body}
}

func payload(base, offset, size uint32, to Reg) Expr {
	var m netlink.Message
	big(&m, unix.NFTA_PAYLOAD_DREG, uint32(to))
	big(&m, unix.NFTA_PAYLOAD_BASE, base)
	big(&m, unix.NFTA_PAYLOAD_OFFSET, offset)
	big(&m, unix.NFTA_PAYLOAD_LEN, size)
	return Expr{"payload", m.Body}
}

func conntrack(key uint32, to Reg) Expr {
	var m netlink.Message
	big(&m, unix.NFTA_CT_DREG, uint32(to))
	big(&m, unix.NFTA_CT_KEY, key)
	return Expr{"ct", m.Body}
}

func compare(op uint32, reg Reg, value []byte) Expr {
	var m netlink.Message
	big(&m, unix.NFTA_CMP_SREG, uint32(reg))
	big(&m, unix.NFTA_CMP_OP, op)
	m.Nest(unix.NFTA_CMP_DATA, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, value) })
	return Expr{"cmp", m.Body}
}

func lookup(set string, key, to Reg) Expr {
	var m netlink.Message
	m.String(unix.NFTA_LOOKUP_SET, set)
	big(&m, unix.NFTA_LOOKUP_SREG, uint32(key))
	if to != 0 {
		big(&m, unix.NFTA_LOOKUP_DREG, uint32(to))
	}
	return Expr{"lookup", m.Body}
}

func dnat(family uint32, addr, port Reg) Expr {
	var m netlink.Message
	big(&m, unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
	big(&m, unix.NFTA_NAT_FAMILY, family)
	big(&m, unix.NFTA_NAT_REG_ADDR_MIN, uint32(addr))
	big(&m, unix.NFTA_NAT_REG_PROTO_MIN, uint32(port))
	return Expr{"nat", m.Body}
}

func verdict(code uint32) Expr {
	var m netlink.Message
	big(&m, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	m.Nest(unix.NFTA_IMMEDIATE_DATA, func(m *netlink.Message) {
		m.Nest(unix.NFTA_DATA_VERDICT, func(m *netlink.Message) { big(m, unix.NFTA_VERDICT_CODE, code) })
	})
	return Expr{"immediate", m.Body}
}

// big appends a number as nf_tables wants all of them: in network byte order.
func big(m *netlink.Message, kind uint16, value uint32) {
	m.Attr(kind, binary.BigEndian.AppendUint32(nil, value))
}
