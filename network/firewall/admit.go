package firewall

import (
	"fmt"
	"slices"
	"strings"

	"gantry/linux/netlink"
	"gantry/linux/nft"
)

// A packet must pass every firewall of the host. One in the table that the iptables command manages, such as Docker's,
// whose forwarding policy is to drop, would cut off our networks; rules at its head let pass what is ours to decide.
// They are written as that command writes its own.
const forwardChain = "FORWARD"

func foreign() nft.Ref { return nft.Ref{Family: nft.IP, Table: "filter"} }

// admit brings our rules in the other firewall in line with the networks; the caller holds mu. It is no failure of ours
// when that cannot be done.
func (f *Firewall) admit() {
	if err := f.tryAdmit(); err != nil {
		f.log.Warn("the host's other firewall may drop the networks' packets", "table", foreign().Table, "error", err)
	}
}

func (f *Firewall) tryAdmit() error {
	t := foreign()
	prefix := f.table.Name + ":"
	have, err := f.conn.Tagged(t, forwardChain, prefix)
	if err != nil {
		return fmt.Errorf("read chain %s: %w", forwardChain, err)
	}
	var want []passage
	if len(f.networks) > 0 {
		drops, err := f.conn.Drops(t, forwardChain)
		if err != nil {
			return fmt.Errorf("read chain %s: %w", forwardChain, err)
		}
		if drops {
			if want, err = f.passages(); err != nil {
				return err
			}
		}
	}
	var b nft.Batch
	var there []string
	for _, r := range have {
		if slices.ContainsFunc(want, func(p passage) bool { return prefix+p.String() == r.Tag }) && !slices.Contains(there, r.Tag) {
			there = append(there, r.Tag)
		} else {
			b.DelRule(t, forwardChain, r.Handle)
		}
	}
	for _, p := range want {
		if tag := prefix + p.String(); !slices.Contains(there, tag) {
			b.InsertRule(t, forwardChain, tag, p.rule())
		}
	}
	return f.conn.Commit(&b)
}

// passage is a way through the host; an empty name is any device.
type passage struct{ from, to string }

func (p passage) String() string { return strings.Join([]string{p.from, p.to}, ">") }

func (p passage) rule() []nft.Expr {
	var e []nft.Expr
	if p.from != "" {
		e = append(e, nft.InputName(nft.R0), nft.Equal(nft.R0, nft.Name16(p.from)))
	}
	if p.to != "" {
		e = append(e, nft.OutputName(nft.R0), nft.Equal(nft.R0, nft.Name16(p.to)))
	}
	return append(e, nft.Accept())
}

// passages are: everything into our bridges, where our own table decides; and from them to the world, that is to
// devices of hardware, bridges of such, and those with a default route, but not to the bridges of other engines, whose
// isolation is theirs.
func (f *Firewall) passages() ([]passage, error) {
	uplinks, err := uplinks()
	if err != nil {
		return nil, fmt.Errorf("list the host's devices: %w", err)
	}
	var all []passage
	for _, n := range f.sorted() {
		all = append(all, passage{to: n.Bridge})
		if n.Internal {
			continue
		}
		for _, u := range uplinks {
			if _, ours := f.networks[u]; !ours {
				all = append(all, passage{n.Bridge, u})
			}
		}
	}
	return all, nil
}

func uplinks() ([]string, error) {
	nl, err := netlink.DialRoute()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	links, err := nl.Links(0)
	if err != nil {
		return nil, err
	}
	routes, err := nl.Routes()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		const loopback = 1
		leads := slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst.Bits() == 0 && r.Index == l.Index }) ||
			slices.ContainsFunc(links, func(port netlink.Link) bool { return port.Kind == "" && port.Master == l.Index })
		if l.Index != loopback && (l.Kind == "" || leads) {
			names = append(names, l.Name)
		}
	}
	return names, nil
}
