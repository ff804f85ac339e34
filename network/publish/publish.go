// Package publish holds the host's ports that are published for sandboxes, so that no other program takes them, and
// serves by proxy the connections that the firewall does not redirect: those to an IPv6 address of the host for a
// sandbox without IPv6, and all of them when there is no firewall.
package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gantry/errdefs"
)

// Ephemeral is the range from which ports are chosen for bindings that name none.
const (
	EphemeralFirst = 49153
	EphemeralLast  = 65535
)

// Request asks for one port on one or several host addresses; all get the same number.
type Request struct {
	Proto  string       // "tcp", "udp", "sctp"
	Hosts  []netip.Addr // 0.0.0.0 and :: mean all addresses of their family
	First  uint16       // 0: any ephemeral port
	Last   uint16       // of the range to choose from; below First: only First
	Target netip.AddrPort
}

// Ports knows what one daemon holds. Its methods may be called concurrently.
type Ports struct {
	mu   sync.Mutex // guards all below
	held map[key]*Held
	next uint16 // where the search for an ephemeral port goes on
}

type key struct {
	proto string
	host  netip.AddrPort
}

// New returns an empty set of ports.
func New() *Ports {
	return &Ports{held: map[key]*Held{}, next: EphemeralFirst}
}

// Held is one port that is held until Close.
type Held struct {
	Proto  string
	Port   uint16
	Hosts  []netip.Addr // those of the request that could be had: without :: where the host has no IPv6
	Target netip.AddrPort

	ports  *Ports
	ends   []interface{ Close() error }
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// Hold takes a port. Its errors, of kind Conflict, are Docker's: "Bind for 0.0.0.0:80 failed: port is already allocated" for
// one that another sandbox has, "failed to bind host port ...: address already in use" for one of another program.
func (p *Ports) Hold(r Request) (*Held, error) {
	first, last := r.First, max(r.First, r.Last)
	if first == 0 {
		first, last = EphemeralFirst, EphemeralLast
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	count := int(last) - int(first) + 1
	start := 0
	if r.First == 0 {
		start = int(p.next) - EphemeralFirst
	}
	var firstErr error
	for i := range count {
		port := uint16(int(first) + (start+i)%count)
		h, err := p.bind(r, port)
		if err == nil {
			if r.First == 0 {
				p.next = EphemeralFirst + uint16((start+i+1)%count)
			}
			return h, nil
		}
		if firstErr == nil {
			firstErr = err
		}
		if !errdefs.Is(err, errdefs.Conflict) {
			return nil, err
		}
	}
	if r.First == 0 {
		return nil, errdefs.New(errdefs.Exhausted, "all ports of the ephemeral range %d-%d are allocated", EphemeralFirst, EphemeralLast)
	}
	if count > 1 {
		return nil, errdefs.New(errdefs.Conflict, "all ports of the range %d-%d are allocated: %w", first, last, firstErr)
	}
	return nil, firstErr
}

// bind takes the port on all addresses; the caller holds mu.
func (p *Ports) bind(r Request, port uint16) (*Held, error) {
	for _, host := range r.Hosts {
		for k := range p.held {
			have := k.host.Addr()
			if k.proto == r.Proto && k.host.Port() == port && have.Is4() == host.Is4() && (have == host || have.IsUnspecified() || host.IsUnspecified()) {
				return nil, errdefs.New(errdefs.Conflict, "Bind for %s failed: port is already allocated", netip.AddrPortFrom(host, port))
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background()) // ends with Close, not with the request
	h := &Held{Proto: r.Proto, Port: port, Target: r.Target, ports: p, cancel: cancel}
	for _, host := range r.Hosts {
		if err := h.listen(ctx, netip.AddrPortFrom(host, port)); err != nil {
			if host.Is6() && len(r.Hosts) > 1 && noIPv6(err) {
				continue
			}
			kind := errdefs.Internal
			if errors.Is(err, syscall.EADDRINUSE) {
				kind = errdefs.Conflict
			} else if errors.Is(err, syscall.EADDRNOTAVAIL) {
				kind = errdefs.InvalidParameter
			}
			var errno syscall.Errno
			errors.As(err, &errno)
			err = errdefs.New(kind, "failed to bind host port %s/%s: %w", netip.AddrPortFrom(host, port), r.Proto, errno)
			h.end()
			return nil, err
		}
		h.Hosts = append(h.Hosts, host)
	}
	for _, host := range h.Hosts {
		p.held[key{r.Proto, netip.AddrPortFrom(host, port)}] = h
	}
	return h, nil
}

func noIPv6(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EPROTONOSUPPORT)
}

func (h *Held) listen(ctx context.Context, host netip.AddrPort) error {
	family := "4"
	if host.Addr().Is6() {
		family = "6"
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	switch h.Proto {
	case "tcp":
		l, err := lc.Listen(ctx, "tcp"+family, host.String())
		if err != nil {
			return err
		}
		h.ends = append(h.ends, l)
		h.wait.Go(func() { proxyTCP(ctx, l, h.Target) })
	case "udp":
		c, err := lc.ListenPacket(ctx, "udp"+family, host.String())
		if err != nil {
			return err
		}
		h.ends = append(h.ends, c)
		if conn, ok := c.(*net.UDPConn); ok {
			h.wait.Go(func() { proxyUDP(ctx, conn, h.Target) })
		}
	case "sctp": // redirected only: many kernels have no SCTP sockets with which to hold it
	default:
		return fmt.Errorf("protocol %s: %w", h.Proto, syscall.EPROTONOSUPPORT)
	}
	return nil
}

// Close gives the port back; proxied connections end.
func (h *Held) Close() {
	h.ports.mu.Lock()
	for _, host := range h.Hosts {
		delete(h.ports.held, key{h.Proto, netip.AddrPortFrom(host, h.Port)})
	}
	h.end()
	h.ports.mu.Unlock()
	h.wait.Wait()
}

func (h *Held) end() {
	h.cancel()
	for _, e := range h.ends {
		_ = e.Close() // sockets that only listened
	}
}
