package firewall

import (
	"net/netip"

	"gantry/linux/nft"
)

const (
	ipv4 = 2  // NFPROTO_IPV4
	ipv6 = 10 // NFPROTO_IPV6
)

// chains returns the rules. They are few and do not grow with the published ports, which are elements of maps; only
// masquerading takes two rules a subnet.
func (f *Firewall) chains() []nft.Chain {
	return []nft.Chain{
		{Name: "guard", Type: "filter", Hook: nft.Prerouting, Priority: nft.PriorityRaw, Rules: guard()},
		{Name: "prerouting", Type: "nat", Hook: nft.Prerouting, Priority: nft.PriorityDNAT, Rules: redirect()},
		{Name: "output", Type: "nat", Hook: nft.Output, Priority: nft.PriorityDNAT, Rules: redirect()},
		{Name: "forward", Type: "filter", Hook: nft.Forward, Priority: nft.PriorityFilter, Rules: forward()},
		{Name: "postrouting", Type: "nat", Hook: nft.Postrouting, Priority: nft.PrioritySNAT, Rules: f.masquerade()},
	}
}

// rule concatenates parts of a rule.
func rule(parts ...[]nft.Expr) []nft.Expr {
	var all []nft.Expr
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func protocol(p byte) []nft.Expr {
	return []nft.Expr{nft.Protocol(nft.R0), nft.Equal(nft.R0, []byte{p})}
}

func from(set string) []nft.Expr { return []nft.Expr{nft.InputName(nft.R0), nft.In(set, nft.R0)} }

func to(set string) []nft.Expr { return []nft.Expr{nft.OutputName(nft.R0), nft.In(set, nft.R0)} }

func bits(load nft.Expr, mask uint32) []nft.Expr {
	return []nft.Expr{load, nft.And(nft.R0, nft.Native32(mask)), nft.NotEqual(nft.R0, nft.Native32(0))}
}

func one(e nft.Expr) []nft.Expr { return []nft.Expr{e} }

// within matches an address of either family against a subnet.
func within(p netip.Prefix, source bool) []nft.Expr {
	family, load := byte(ipv4), nft.DestinationAddr4(nft.R0)
	switch {
	case p.Addr().Is4() && source:
		load = nft.SourceAddr4(nft.R0)
	case p.Addr().Is6() && source:
		family, load = ipv6, nft.SourceAddr6(nft.R0)
	case p.Addr().Is6():
		family, load = ipv6, nft.DestinationAddr6(nft.R0)
	}
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return rule(protocol(family), []nft.Expr{load, nft.And(nft.R0, mask), nft.Equal(nft.R0, p.Masked().Addr().AsSlice())})
}

// guard keeps sandboxes from the host's loopback addresses, which route_localnet would let them reach. It comes before
// any translation, when no packet from a bridge can rightly have such an address.
func guard() [][]nft.Expr {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	return [][]nft.Expr{
		rule(from(setBridges), within(loopback, false), one(nft.Drop())),
		rule(from(setBridges), within(loopback, true), one(nft.Drop())),
	}
}

// redirect sends what is addressed to a published port of the host to its sandbox.
func redirect() [][]nft.Expr {
	local := []nft.Expr{nft.DestinationType(nft.R0), nft.Equal(nft.R0, nft.Native32(nft.TypeLocal))}
	r := nft.R0
	return [][]nft.Expr{
		rule(protocol(ipv4), local, []nft.Expr{
			nft.L4Protocol(r), nft.DestinationAddr4(r + 1), nft.DestinationPort(r + 2), nft.Map(mapPorts4, r, r), nft.DNAT4(r, r+1),
		}),
		rule(protocol(ipv4), local, []nft.Expr{
			nft.L4Protocol(r), nft.DestinationPort(r + 1), nft.Map(mapAnyPorts4, r, r), nft.DNAT4(r, r+1),
		}),
		rule(protocol(ipv6), local, []nft.Expr{
			nft.L4Protocol(r), nft.DestinationAddr6(r + 1), nft.DestinationPort(r + 5), nft.Map(mapPorts6, r, r), nft.DNAT6(r, r+4),
		}),
		rule(protocol(ipv6), local, []nft.Expr{
			nft.L4Protocol(r), nft.DestinationPort(r + 1), nft.Map(mapAnyPorts6, r, r), nft.DNAT6(r, r+4),
		}),
	}
}

// forward isolates: into a bridge pass answers, published ports and what the own network may say; everything else,
// other bridges included, is dropped. What leaves towards the world passes, save from internal networks.
func forward() [][]nft.Expr {
	return [][]nft.Expr{
		// bridged packets come here only where br_netfilter is on
		{nft.InputName(nft.R0), nft.OutputName(nft.R0 + 4), nft.In(setTalk, nft.R0), nft.Accept()},
		rule(from(setInternal), one(nft.Drop())),
		rule(to(setInternal), one(nft.Drop())),
		rule(to(setBridges), bits(nft.ConntrackState(nft.R0), nft.StateEstablished|nft.StateRelated), one(nft.Accept())),
		rule(to(setBridges), bits(nft.ConntrackStatus(nft.R0), nft.StatusDNAT), one(nft.Accept())),
		rule(to(setBridges), one(nft.Drop())),
	}
}

func (f *Firewall) masquerade() [][]nft.Expr {
	var rules [][]nft.Expr
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	rules = append(rules, rule(within(loopback, true), to(setBridges), one(nft.Masquerade())))
	for _, n := range f.sorted() {
		bridge := nft.Name16(n.Bridge)
		for _, s := range n.Subnets {
			// a sandbox that reaches a published port of its own network must get the answers through the host
			rules = append(rules, rule(within(s, true), []nft.Expr{nft.OutputName(nft.R0), nft.Equal(nft.R0, bridge)},
				bits(nft.ConntrackStatus(nft.R0), nft.StatusDNAT), one(nft.Masquerade())))
			if n.Masquerade && !n.Internal {
				rules = append(rules, rule(within(s, true), []nft.Expr{nft.OutputName(nft.R0), nft.NotEqual(nft.R0, bridge), nft.Masquerade()}))
			}
		}
	}
	return rules
}
