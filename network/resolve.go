package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"gantry/linux/netns"
	"gantry/linux/nft"
	"gantry/network/dns"
)

// resolverAddr is where sandboxes on user networks find their server.
func resolverAddr() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 11}) }

// resolve starts the sandbox's DNS server when it is on a user network, tells it of changes, and ends it when it is on
// none any more.
func (s *Service) resolve(sb *sandbox) error {
	v, needed := s.dnsView(sb)
	switch {
	case sb.ns == nil:
		return nil
	case !needed && sb.resolver != nil:
		sb.resolver.Close()
		sb.resolver = nil
		s.setResolves(sb, false)
		return nil
	case !needed:
		return nil
	case sb.resolver != nil:
		sb.resolver.Set(v)
		return nil
	}
	var udp net.PacketConn
	var tcp net.Listener
	err := netns.Do(sb.ns, func() (err error) {
		if udp, tcp, err = listenDNS(); err != nil {
			return err
		}
		return redirectDNS(udp, tcp)
	})
	if err != nil {
		if udp != nil {
			err = errors.Join(err, udp.Close(), tcp.Close())
		}
		return fmt.Errorf("start DNS server for %s: %w", short(sb.ID), err)
	}
	sb.resolver = dns.Serve(s.dns, udp, tcp, v)
	s.setResolves(sb, true)
	return nil
}

func (s *Service) setResolves(sb *sandbox, resolves bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb.resolves = resolves
}

// dnsView collects what the sandbox resolves.
func (s *Service) dnsView(sb *sandbox) (dns.View, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := dns.View{Hosts: map[string][]netip.Addr{}, Links: map[string]string{}, Upstream: dns.Ports(sb.DNS), Internal: true}
	for name, addrs := range sb.ExtraHosts {
		v.Hosts[strings.ToLower(name)] = addrs
	}
	needed := false
	for _, e := range sb.Endpoints {
		n := s.networks[e.NetworkID]
		if n == nil || n.device == nil {
			continue
		}
		v.Internal = v.Internal && n.Internal
		if n.predefined() {
			continue
		}
		needed = true
		v.Zones = append(v.Zones, n.zone)
		for alias, target := range e.Links {
			if known := s.sandboxes[target]; known != nil {
				target = short(target)
			}
			v.Links[strings.ToLower(alias)] = target
		}
	}
	return v, needed
}

// listenDNS opens the server's sockets in the calling thread's namespace, on ports that the sandbox will not want: it may
// run a server of its own on port 53 of all addresses.
func listenDNS() (net.PacketConn, net.Listener, error) {
	var lc net.ListenConfig
	ctx := context.Background() // sockets are opened without waiting
	udp, err := lc.ListenPacket(ctx, "udp4", resolverAddr().String()+":0")
	if err != nil {
		return nil, nil, err
	}
	tcp, err := lc.Listen(ctx, "tcp4", resolverAddr().String()+":0")
	if err != nil {
		return nil, nil, errors.Join(err, udp.Close())
	}
	return udp, tcp, nil
}

// redirectDNS makes 127.0.0.11:53 of the calling thread's namespace lead to the sockets.
func redirectDNS(udp net.PacketConn, tcp net.Listener) error {
	c, err := nft.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	var b nft.Batch
	t := nft.Table{Name: "gantry_dns"}
	there, err := c.HasTable(t.Name)
	if err != nil {
		return err
	}
	if there { // of the daemon before; a needless deletion costs a grace period
		b.DelTable(t.Name)
	}
	b.AddTable(t)
	var rules [][]nft.Expr
	for proto, addr := range map[byte]net.Addr{6: tcp.Addr(), 17: udp.LocalAddr()} {
		to, err := netip.ParseAddrPort(addr.String())
		if err != nil {
			return err
		}
		r := nft.R0
		rules = append(rules, []nft.Expr{
			nft.Protocol(r), nft.Equal(r, []byte{2}), // NFPROTO_IPV4
			nft.DestinationAddr4(r), nft.Equal(r, resolverAddr().AsSlice()),
			nft.L4Protocol(r), nft.Equal(r, []byte{proto}),
			nft.DestinationPort(r), nft.Equal(r, []byte{0, 53}),
			nft.Load(r, to.Addr().AsSlice()), nft.Load(r+1, []byte{byte(to.Port() >> 8), byte(to.Port())}),
			nft.DNAT4(r, r+1),
		})
	}
	b.AddChain(t.Name, nft.Chain{Name: "output", Type: "nat", Hook: nft.Output, Priority: nft.PriorityDNAT, Rules: rules})
	return c.Commit(&b)
}
