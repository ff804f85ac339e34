package network

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"gantry/errdefs"
	"gantry/network/dns"
	"gantry/network/firewall"
	"gantry/network/publish"
)

// sandboxRecord is a sandbox that has joined, in the database. It is written before the sandbox starts and deleted when
// it leaves, so that addresses and ports are known over a restart of the daemon.
type sandboxRecord struct {
	ID         string
	Name       string
	Ports      []PortBinding // as asked for
	DNS        []netip.Addr
	ExtraHosts map[string][]netip.Addr
	Endpoints  []Endpoint
	Open       []openPort
}

// openPort is a published port with all that is needed to publish it again.
type openPort struct {
	Published
	Target netip.AddrPort
}

// sandbox is a sandbox that has joined.
type sandbox struct {
	mu sync.Mutex // held through each verb on the sandbox; guards all below, Service.mu also guards what others read

	sandboxRecord
	ns       *os.File // nil on the host network, and after a restart until Restore
	held     []*publish.Held
	resolver *dns.Server
	resolves bool // resolver is there; Service.mu guards it too
	left     bool
}

// view copies what callers may see; the caller holds Service.mu.
func (sb *sandbox) view() Sandbox {
	v := Sandbox{ID: sb.ID, Name: sb.Name, Endpoints: slices.Clone(sb.Endpoints)}
	for _, p := range sb.Open {
		v.Ports = append(v.Ports, p.Published)
	}
	if sb.resolves {
		v.Resolver = resolverAddr()
	}
	return v
}

func (sb *sandbox) endpoint(networkID string) *Endpoint {
	for i := range sb.Endpoints {
		if sb.Endpoints[i].NetworkID == networkID {
			return &sb.Endpoints[i]
		}
	}
	return nil
}

// letGo closes everything of the sandbox that lives in the daemon; the sandbox's network stays as it is.
func (sb *sandbox) letGo() {
	for _, h := range sb.held {
		h.Close()
	}
	sb.held = nil
	if sb.resolver != nil {
		sb.resolver.Close()
		sb.resolver = nil
	}
	if sb.ns != nil {
		_ = sb.ns.Close() // read-only
		sb.ns = nil
	}
}

// rules are the firewall's entries for the sandbox's ports: none for those that only the proxy can serve.
func (sb *sandbox) rules() []firewall.Port {
	var ports []firewall.Port
	for _, p := range sb.Open {
		if r, ok := p.rule(); ok {
			ports = append(ports, r)
		}
	}
	return ports
}

func (p openPort) rule() (firewall.Port, bool) {
	number := map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132}[p.Proto]
	return firewall.Port{
		Proto: number, Host: netip.AddrPortFrom(p.HostAddr, p.HostPort), Target: p.Target,
	}, p.HostAddr.Is4() == p.Target.Addr().Is4()
}

// gateway returns the endpoint that has, or should have, the default route: the highest priority, then the first by
// network name; nil when all networks are internal.
func (sb *sandbox) gateway() *Endpoint {
	var best *Endpoint
	for i := range sb.Endpoints {
		e := &sb.Endpoints[i]
		if !e.Gateway.IsValid() && !e.Gateway6.IsValid() {
			continue
		}
		if best == nil || e.GatewayPriority > best.GatewayPriority || e.GatewayPriority == best.GatewayPriority && e.NetworkName < best.NetworkName {
			best = e
		}
	}
	return best
}

// interfaceName returns the first ethN that is free.
func (sb *sandbox) interfaceName() string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("eth%d", i)
		if !slices.ContainsFunc(sb.Endpoints, func(e Endpoint) bool { return e.Interface == name }) {
			return name
		}
	}
}

// Sandboxes returns the sandboxes that have joined the network with that ID; all for "".
func (s *Service) Sandboxes(networkID string) []Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Sandbox
	for _, sb := range s.sandboxes {
		if networkID == "" || sb.endpoint(networkID) != nil {
			found = append(found, sb.view())
		}
	}
	slices.SortFunc(found, func(a, b Sandbox) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return found
}

// Sandbox returns what a sandbox has joined, or an error of kind NotFound.
func (s *Service) Sandbox(id string) (Sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb := s.sandboxes[id]
	if sb == nil {
		return Sandbox{}, errdefs.New(errdefs.NotFound, "sandbox %s has joined no network", id)
	}
	return sb.view(), nil
}
