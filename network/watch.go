package network

import (
	"fmt"
	"sync"

	"gantry/linux/netlink"
)

// watcher puts bridges back that another program switched off or removed.
type watcher struct {
	s    *Service
	l    *netlink.Listener
	wait sync.WaitGroup
}

func watch(s *Service) (*watcher, error) {
	l, err := netlink.ListenLinks()
	if err != nil {
		return nil, fmt.Errorf("watch devices: %w", err)
	}
	return &watcher{s: s, l: l}, nil
}

func (w *watcher) start() { w.wait.Go(w.run) }

func (w *watcher) close() {
	_ = w.l.Close() // ends run
	w.wait.Wait()
}

func (w *watcher) run() {
	for {
		changes, lost, err := w.l.LinkChanges()
		if err != nil {
			return
		}
		for _, n := range w.s.bridges() {
			broken := lost
			for _, c := range changes {
				broken = broken || c.Index == n.device.Index() && (c.Gone || !c.Up)
			}
			if !broken {
				continue
			}
			if err := w.s.rebuild(n); err != nil {
				w.s.log.Error("bridge was changed by another program and cannot be put back", "network", n.Name, "bridge", n.Device, "error", err)
			} else if !lost {
				w.s.log.Warn("bridge was changed by another program and has been put back", "network", n.Name, "bridge", n.Device)
			}
		}
	}
}

// bridges returns the networks with devices of ours.
func (s *Service) bridges() []*network {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*network
	for _, n := range s.networks {
		if n.device != nil && n.device.Created {
			all = append(all, n)
		}
	}
	return all
}

// removed reports whether the network is one no more.
func (s *Service) removed(n *network) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.networks[n.ID] != n
}

// rebuild makes a bridge as it should be and puts the endpoints' devices back on it.
func (s *Service) rebuild(n *network) error {
	s.creating.Lock()
	defer s.creating.Unlock()
	if s.removed(n) {
		return nil
	}
	before := n.device.Index()
	if err := n.device.Rebuild(s.nl); err != nil {
		return err
	}
	if n.device.Index() == before {
		return nil
	}
	if n.isDefault() {
		s.pool.renew()
	}
	for _, sb := range s.Sandboxes(n.ID) {
		for _, e := range sb.Endpoints {
			if e.NetworkID == n.ID {
				if err := n.device.Adopt(s.nl, e.HostLink); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
