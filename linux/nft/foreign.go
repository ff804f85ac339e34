package nft

import (
	"bytes"
	"encoding/binary"
	"errors"

	"gantry/linux/netlink"

	"golang.org/x/sys/unix"
)

// Family says which packets a table sees.
type Family uint8

// The families.
const (
	Inet Family = unix.NFPROTO_INET
	IP   Family = unix.NFPROTO_IPV4
	IP6  Family = unix.NFPROTO_IPV6
)

// Ref names a table of any family.
type Ref struct {
	Family Family
	Table  string
}

// Rule is a rule in another program's chain that this one added, known by its tag.
type Rule struct {
	Handle uint64
	Tag    string
}

const (
	udataComment = 0 // NFTNL_UDATA_RULE_COMMENT
	maxComment   = 127
)

// Drops reports whether the table has a base chain of that name whose policy is to drop.
func (c *Conn) Drops(t Ref, chain string) (bool, error) {
	m := messageOf(t.Family, unix.NFT_MSG_GETCHAIN, 0)
	m.String(unix.NFTA_CHAIN_TABLE, t.Table)
	m.String(unix.NFTA_CHAIN_NAME, chain)
	r, err := c.nl.Get(m)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	drops := false
	err = netlink.Attrs(r.Body[min(4, len(r.Body)):], func(kind uint16, v []byte) {
		const drop = 0 // NF_DROP
		if kind == unix.NFTA_CHAIN_POLICY && len(v) == 4 {
			drops = binary.BigEndian.Uint32(v) == drop
		}
	})
	return drops, err
}

// Tagged returns the rules of the chain that have a comment with the prefix.
func (c *Conn) Tagged(t Ref, chain, prefix string) ([]Rule, error) {
	m := messageOf(t.Family, unix.NFT_MSG_GETRULE, 0)
	m.String(unix.NFTA_RULE_TABLE, t.Table)
	m.String(unix.NFTA_RULE_CHAIN, chain)
	var rules []Rule
	err := c.nl.Dump(m, func() { rules = nil }, func(r netlink.Reply) error {
		if len(r.Body) < 4 {
			return errors.New("nf_tables: rule message is too short")
		}
		var rule Rule
		in, table := "", ""
		err := netlink.Attrs(r.Body[4:], func(kind uint16, v []byte) {
			switch {
			case kind == unix.NFTA_RULE_TABLE:
				table = unix.ByteSliceToString(v)
			case kind == unix.NFTA_RULE_CHAIN:
				in = unix.ByteSliceToString(v)
			case kind == unix.NFTA_RULE_HANDLE && len(v) == 8:
				rule.Handle = binary.BigEndian.Uint64(v)
			case kind == unix.NFTA_RULE_USERDATA && len(v) > 2 && v[0] == udataComment:
				rule.Tag = unix.ByteSliceToString(v[2:])
			}
		})
		if table == t.Table && in == chain && bytes.HasPrefix([]byte(rule.Tag), []byte(prefix)) {
			rules = append(rules, rule)
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return rules, err
}

// InsertRule puts a rule with a comment, at most 127 bytes long, before all others of the chain.
func (b *Batch) InsertRule(t Ref, chain, tag string, exprs []Expr) {
	m := messageOf(t.Family, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE)
	m.String(unix.NFTA_RULE_TABLE, t.Table)
	m.String(unix.NFTA_RULE_CHAIN, chain)
	expressions(&m, exprs)
	tag = tag[:min(len(tag), maxComment)]
	m.Attr(unix.NFTA_RULE_USERDATA, append(append([]byte{udataComment, byte(len(tag) + 1)}, tag...), 0))
	b.add(m)
}

// DelRule removes a rule.
func (b *Batch) DelRule(t Ref, chain string, handle uint64) {
	m := messageOf(t.Family, unix.NFT_MSG_DELRULE, 0)
	m.String(unix.NFTA_RULE_TABLE, t.Table)
	m.String(unix.NFTA_RULE_CHAIN, chain)
	m.Attr(unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, handle))
	b.add(m)
}
