// Package nft changes nftables through netlink: whole tables or single elements, each batch in one transaction.
package nft

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"gantry/linux/netlink"

	"golang.org/x/sys/unix"
)

// Hooks and priorities of base chains.
const (
	Prerouting  = 0
	Input       = 1
	Forward     = 2
	Output      = 3
	Postrouting = 4

	PriorityRaw    = -300
	PriorityDNAT   = -100
	PriorityFilter = 0
	PrioritySNAT   = 100
)

// Table names a table of the inet family, which sees IPv4 and IPv6.
type Table struct {
	Name string
	// Owned makes it belong to the Conn that adds it: nobody else can change or flush it while the Conn is open, and it
	// outlives the Conn as an ordinary one. It needs Linux 6.9.
	Owned bool
}

// Chain is a base chain, called at a hook.
type Chain struct {
	Name     string
	Type     string // "filter", "nat"
	Hook     uint32
	Priority int32
	Rules    [][]Expr
}

// Type is the type of a key or value: for the kernel a length, for the nft command a number that says how to print it.
type Type struct {
	size  uint32
	magic uint32
}

// The types; their numbers are those of the nft command.
var (
	IPv4   = Type{4, 7}
	IPv6   = Type{16, 8}
	Proto  = Type{1, 12}
	Port   = Type{2, 13}
	Device = Type{16, 41}
)

// Concat is the type of several values behind each other, each padded to four bytes.
func Concat(types ...Type) Type {
	var c Type
	for _, t := range types {
		c.size += (t.size + 3) &^ 3
		c.magic = c.magic<<6 | t.magic
	}
	return c
}

// Set is a named set of keys, or with a Value type a map.
type Set struct {
	Name     string
	Key      Type
	Value    Type // zero: a set
	Elements []Element
}

// Element is one member of a set or map.
type Element struct {
	Key   []byte
	Value []byte // nil in sets
}

// Join concatenates values as Concat's keys have them.
func Join(values ...[]byte) []byte {
	var b []byte
	for _, v := range values {
		b = append(b, v...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

// Batch collects changes that happen together or not at all.
type Batch struct {
	messages []netlink.Message
}

// AddTable adds the table if it is not there.
func (b *Batch) AddTable(t Table) {
	m := message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE)
	m.String(unix.NFTA_TABLE_NAME, t.Name)
	if t.Owned {
		big(&m, unix.NFTA_TABLE_FLAGS, tableOwner|tablePersist)
	}
	b.add(m)
}

const (
	tableOwner   = 2
	tablePersist = 4
)

// DelTable deletes the table with all that is in it; it must be there.
func (b *Batch) DelTable(name string) {
	m := message(unix.NFT_MSG_DELTABLE, 0)
	m.String(unix.NFTA_TABLE_NAME, name)
	b.add(m)
}

// AddChain adds a chain with its rules; the sets that they name must be there.
func (b *Batch) AddChain(table string, c Chain) {
	m := message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE)
	m.String(unix.NFTA_CHAIN_TABLE, table)
	m.String(unix.NFTA_CHAIN_NAME, c.Name)
	m.String(unix.NFTA_CHAIN_TYPE, c.Type)
	m.Nest(unix.NFTA_CHAIN_HOOK, func(m *netlink.Message) {
		big(m, unix.NFTA_HOOK_HOOKNUM, c.Hook)
		big(m, unix.NFTA_HOOK_PRIORITY, uint32(c.Priority))
	})
	b.add(m)
	for _, r := range c.Rules {
		b.addRule(table, c.Name, r)
	}
}

func (b *Batch) addRule(table, chain string, exprs []Expr) {
	m := message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
	m.String(unix.NFTA_RULE_TABLE, table)
	m.String(unix.NFTA_RULE_CHAIN, chain)
	expressions(&m, exprs)
	b.add(m)
}

func expressions(m *netlink.Message, exprs []Expr) {
	m.Nest(unix.NFTA_RULE_EXPRESSIONS, func(m *netlink.Message) {
		for _, e := range exprs {
			m.Nest(unix.NFTA_LIST_ELEM, func(m *netlink.Message) {
				m.String(unix.NFTA_EXPR_NAME, e.name)
				m.Nest(unix.NFTA_EXPR_DATA, func(m *netlink.Message) { m.Body = append(m.Body, e.data...) })
			})
		}
	})
}

// AddSet adds a set or map with its elements.
func (b *Batch) AddSet(table string, s Set) {
	m := message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	m.String(unix.NFTA_SET_TABLE, table)
	m.String(unix.NFTA_SET_NAME, s.Name)
	flags := uint32(0)
	if s.Value.size > 0 {
		flags |= unix.NFT_SET_MAP
	}
	big(&m, unix.NFTA_SET_FLAGS, flags)
	big(&m, unix.NFTA_SET_KEY_TYPE, s.Key.magic)
	big(&m, unix.NFTA_SET_KEY_LEN, s.Key.size)
	big(&m, unix.NFTA_SET_ID, uint32(len(b.messages)+1))
	if s.Value.size > 0 {
		big(&m, unix.NFTA_SET_DATA_TYPE, s.Value.magic)
		big(&m, unix.NFTA_SET_DATA_LEN, s.Value.size)
	}
	if s.Key == Device {
		m.Attr(unix.NFTA_SET_USERDATA, keyInHostOrder())
	}
	b.add(m)
	b.AddElements(table, s.Name, s.Elements...)
}

// keyInHostOrder is a note to the nft command, without which it prints names as numbers: type, length, value.
func keyInHostOrder() []byte {
	const keyByteOrder, hostEndian = 0, 1
	return append([]byte{keyByteOrder, 4}, Native32(hostEndian)...)
}

// AddElements adds elements; equal ones that are there already are no error.
func (b *Batch) AddElements(table, set string, elements ...Element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, table, set, elements)
}

// DelElements removes elements; they must be there.
func (b *Batch) DelElements(table, set string, elements ...Element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, table, set, elements)
}

func (b *Batch) elements(kind, flags uint16, table, set string, elements []Element) {
	const most = 256 // an attribute holds 64 KiB
	for len(elements) > 0 {
		part := elements[:min(most, len(elements))]
		elements = elements[len(part):]
		m := message(kind, flags)
		m.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		m.String(unix.NFTA_SET_ELEM_LIST_SET, set)
		m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(m *netlink.Message) {
			for _, e := range part {
				m.Nest(unix.NFTA_LIST_ELEM, func(m *netlink.Message) {
					m.Nest(unix.NFTA_SET_ELEM_KEY, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, e.Key) })
					if e.Value != nil {
						m.Nest(unix.NFTA_SET_ELEM_DATA, func(m *netlink.Message) { m.Attr(unix.NFTA_DATA_VALUE, e.Value) })
					}
				})
			}
		})
		b.add(m)
	}
}

// Empty reports whether the batch has no changes.
func (b *Batch) Empty() bool { return len(b.messages) == 0 }

func (b *Batch) add(m netlink.Message) { b.messages = append(b.messages, m) }

// message starts a request about a table of the inet family.
func message(kind, flags uint16) netlink.Message { return messageOf(Inet, kind, flags) }

// messageOf starts a request with its struct nfgenmsg: family, version, resource.
func messageOf(family Family, kind, flags uint16) netlink.Message {
	body := make([]byte, 4, 128)
	body[0] = byte(family)
	return netlink.Message{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: flags, Body: body}
}

// Conn is a connection to nf_tables of one network namespace. Its methods may be called concurrently.
type Conn struct {
	mu sync.Mutex // guards nl: one batch at a time
	nl *netlink.Conn
}

// Dial connects to nf_tables in the network namespace of the calling thread.
func Dial() (*Conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("connect to nf_tables: %w", err)
	}
	return &Conn{nl: nl}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.nl.Close() }

// Port is the connection's netlink address, which announcements of its changes carry.
func (c *Conn) Port() uint32 { return c.nl.Port() }

// Commit executes the batch: all of it, or nothing and an error that wraps the unix.Errno of the first failure.
func (c *Conn) Commit(b *Batch) error {
	if b.Empty() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var first, last uint32
	replies, err := c.nl.Transact(func(seq uint32) ([]byte, uint32) {
		first = seq
		frame := []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES} // nfgenmsg with the subsystem as big-endian resource
		raw := netlink.Encode(nil, netlink.Message{Type: unix.NFNL_MSG_BATCH_BEGIN, Body: frame}, seq)
		for i, m := range b.messages {
			seq++
			if i == len(b.messages)-1 {
				m.Flags |= unix.NLM_F_ACK
			}
			raw = netlink.Encode(raw, m, seq)
		}
		last = seq
		return netlink.Encode(raw, netlink.Message{Type: unix.NFNL_MSG_BATCH_END, Body: frame}, seq+1), seq + 1
	})
	if err != nil {
		return fmt.Errorf("change nf_tables: %w", err)
	}
	acknowledged := false
	for _, r := range replies {
		if r.Type != unix.NLMSG_ERROR {
			continue
		}
		if err := netlink.Errno(r); err != nil {
			return fmt.Errorf("change nf_tables: step %d of %d: %w", r.Seq-first, len(b.messages), err)
		}
		acknowledged = acknowledged || r.Seq == last
	}
	if !acknowledged {
		return errors.New("change nf_tables: the kernel did not answer")
	}
	return nil
}

// HasTable reports whether there is a table of that name.
func (c *Conn) HasTable(name string) (bool, error) {
	m := message(unix.NFT_MSG_GETTABLE, 0)
	m.String(unix.NFTA_TABLE_NAME, name)
	_, err := c.nl.Get(m)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// Elements returns the members of a set or map.
func (c *Conn) Elements(table, set string) ([]Element, error) {
	m := message(unix.NFT_MSG_GETSETELEM, 0)
	m.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	m.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	var elements []Element
	err := c.nl.Dump(m, func() { elements = nil }, func(r netlink.Reply) error {
		if len(r.Body) < 4 {
			return errors.New("nf_tables: element message is too short")
		}
		return netlink.Attrs(r.Body[4:], func(kind uint16, v []byte) {
			if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return
			}
			_ = netlink.Attrs(v, func(_ uint16, v []byte) { // what does not parse is left out
				var e Element
				_ = netlink.Attrs(v, func(kind uint16, v []byte) {
					switch kind {
					case unix.NFTA_SET_ELEM_KEY:
						e.Key = data(v)
					case unix.NFTA_SET_ELEM_DATA:
						e.Value = data(v)
					}
				})
				elements = append(elements, e)
			})
		})
	})
	return elements, err
}

// Rules returns how many rules each chain of the table has.
func (c *Conn) Rules(table string) (map[string]int, error) {
	m := message(unix.NFT_MSG_GETRULE, 0)
	m.String(unix.NFTA_RULE_TABLE, table)
	var rules map[string]int
	err := c.nl.Dump(m, func() { rules = map[string]int{} }, func(r netlink.Reply) error {
		if len(r.Body) < 4 {
			return errors.New("nf_tables: rule message is too short")
		}
		var in, chain string
		err := netlink.Attrs(r.Body[4:], func(kind uint16, v []byte) {
			switch kind {
			case unix.NFTA_RULE_TABLE:
				in = unix.ByteSliceToString(v)
			case unix.NFTA_RULE_CHAIN:
				chain = unix.ByteSliceToString(v)
			}
		})
		if in == table {
			rules[chain]++
		}
		return err
	})
	return rules, err
}

func data(b []byte) (value []byte) {
	_ = netlink.Attrs(b, func(kind uint16, v []byte) {
		if kind == unix.NFTA_DATA_VALUE {
			value = append([]byte(nil), v...)
		}
	})
	return value
}

// Monitor hears of changes to nf_tables.
type Monitor struct{ l *netlink.Listener }

// Watch hears of every change in the network namespace of the calling thread.
func Watch() (*Monitor, error) {
	l, err := netlink.Listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, fmt.Errorf("watch nf_tables: %w", err)
	}
	return &Monitor{l}, nil
}

// Next waits for changes. It returns the tables, of any family, that another socket than port changed, and whether some
// changes were missed; after Close an error.
func (m *Monitor) Next(port uint32) (changed []Ref, missed bool, err error) {
	replies, lost, err := m.l.Receive()
	if err != nil || lost {
		return nil, lost, err
	}
	for _, r := range replies {
		if r.Port == port || r.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(r.Body) < 4 || r.Type&0xff == unix.NFT_MSG_NEWGEN {
			continue
		}
		_ = netlink.Attrs(r.Body[4:], func(kind uint16, v []byte) {
			// NFTA_TABLE_NAME and the other objects' NFTA_*_TABLE are all attribute 1
			ref := Ref{Family(r.Body[0]), unix.ByteSliceToString(v)}
			if kind == unix.NFTA_TABLE_NAME && !slices.Contains(changed, ref) {
				changed = append(changed, ref)
			}
		})
	}
	return changed, false, nil
}

// Close ends Next.
func (m *Monitor) Close() error { return m.l.Close() }
