package network

import (
	"errors"
	"os"
	"sync"

	"gantry/linux/netns"
	"gantry/network/bridge"
)

// pool keeps namespaces ready: some already on the default network, with device and address, and some with only lo. It
// holds nothing but descriptors, so the kernel takes everything back when the daemon ends in any way.
type pool struct {
	s      *Service
	joined chan *ready // on the default network
	bare   chan *ready
	wake   chan struct{}
	stop   chan struct{}
	wait   sync.WaitGroup
}

// ready is a namespace that no sandbox has yet.
type ready struct {
	ns       *os.File
	endpoint *Endpoint // on the default network; nil in a bare one
}

func newPool(s *Service, size int) *pool {
	p := &pool{
		s: s, wake: make(chan struct{}, 1), stop: make(chan struct{}),
		joined: make(chan *ready, size), bare: make(chan *ready, (size+1)/2),
	}
	if s.defaultNetwork() == nil {
		p.joined = nil
	}
	p.wait.Go(p.fill)
	return p
}

// fill keeps the channels full. A failure, such as too few addresses, waits for the next take.
func (p *pool) fill() {
	for {
		for len(p.joined) < cap(p.joined) || len(p.bare) < cap(p.bare) {
			select {
			case <-p.stop:
				return
			default:
			}
			to, on := p.bare, (*network)(nil)
			if len(p.joined) < cap(p.joined) {
				to, on = p.joined, p.s.defaultNetwork()
			}
			r, err := p.s.prepare(on)
			if err != nil {
				p.s.log.Warn("network namespace cannot be made ready", "error", err)
				break
			}
			to <- r // has room: nobody else fills
		}
		select {
		case <-p.wake:
		case <-p.stop:
			return
		}
	}
}

// take returns a ready namespace, on the default network if asked for and there is one; with none ready it makes one.
func (p *pool) take(onDefault *network) (*ready, error) {
	from := p.bare
	if onDefault != nil {
		from = p.joined
	}
	defer p.refill()
	select {
	case r := <-from:
		return r, nil
	default:
		return p.s.prepare(onDefault)
	}
}

func (p *pool) refill() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// renew replaces the namespaces on the default network, whose bridge was made anew.
func (p *pool) renew() {
	for {
		select {
		case r := <-p.joined:
			_ = r.ns.Close() // the kernel removes what is inside
			p.s.release(p.s.defaultNetwork(), *r.endpoint)
		default:
			p.refill()
			return
		}
	}
}

// close ends the filling and lets the namespaces go.
func (p *pool) close() {
	close(p.stop)
	p.wait.Wait()
	for {
		select {
		case r := <-p.joined:
			_ = r.ns.Close() // the kernel removes what is inside
			p.s.release(p.s.defaultNetwork(), *r.endpoint)
		case r := <-p.bare:
			_ = r.ns.Close()
		default:
			return
		}
	}
}

// prepare makes a namespace, on the network if it is not nil.
func (s *Service) prepare(n *network) (*ready, error) {
	ns, err := netns.New(bridge.Loopback)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return &ready{ns: ns}, nil
	}
	e, err := s.attach(n, ns, EndpointConfig{}, "eth0", true)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return &ready{ns, &e}, nil
}

func (s *Service) defaultNetwork() *network {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.networks {
		if n.isDefault() {
			return n
		}
	}
	return nil
}
