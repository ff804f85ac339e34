package network

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"gantry/db"
	"gantry/errdefs"
	"gantry/fsck"
	"gantry/linux/netlink"
	"gantry/network/bridge"
)

const area = "network"

// Check compares the records with links, addresses and rules.
func (s *Service) Check(ctx context.Context) ([]fsck.Difference, error) {
	var found []fsck.Difference
	s.mu.Lock()
	nets := slices.Collect(maps.Values(s.networks))
	s.mu.Unlock()
	for _, n := range nets {
		if n.Device == "" {
			continue
		}
		differences, err := s.checkBridge(n)
		if err == nil && len(differences) == 0 {
			differences, err = s.checkLinks(ctx, n)
		}
		if err != nil {
			return found, fmt.Errorf("check network %s: %w", n.Name, err)
		}
		found = append(found, differences...)
	}
	records, err := s.checkRecords()
	if err != nil {
		return found, fmt.Errorf("check networks: %w", err)
	}
	found = append(found, records...)
	if s.fw != nil {
		problems, err := s.fw.Check()
		if err != nil {
			return found, fmt.Errorf("check firewall: %w", err)
		}
		for _, p := range problems {
			found = append(found, fsck.Difference{
				Area: area, Object: "nft table inet " + s.tableName(), Problem: p,
				Repair: func(context.Context) error { return s.fw.Heal() },
			})
		}
	}
	return found, nil
}

// checkBridge looks for the device and its address; not while it is made, put back or removed.
func (s *Service) checkBridge(n *network) ([]fsck.Difference, error) {
	different := func(problem string) []fsck.Difference {
		return []fsck.Difference{{Area: area, Object: n.Name, Problem: problem, Repair: func(context.Context) error { return s.rebuild(n) }}}
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	if s.removed(n) {
		return nil, nil
	}
	if n.device == nil {
		return []fsck.Difference{{Area: area, Object: n.Name, Problem: "could not be set up when the daemon started; its log says why"}}, nil
	}
	link, err := s.nl.LinkByName(n.Device)
	if errdefs.Is(err, errdefs.NotFound) {
		return different("bridge " + n.Device + " is missing"), nil
	}
	if err != nil {
		return nil, err
	}
	if link.Index != n.device.Index() {
		return different("bridge " + n.Device + " was replaced by another program"), nil
	}
	if !link.Up {
		return different("bridge " + n.Device + " is down"), nil
	}
	addrs, err := s.nl.Addrs(link.Index)
	if err != nil {
		return nil, err
	}
	for _, c := range n.IPAM.Config {
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.Prefix.Addr() == c.Gateway }) {
			return different(fmt.Sprintf("bridge %s does not have its address %s", n.Device, c.Gateway)), nil
		}
	}
	return nil, nil
}

// checkLinks compares the bridge's ports with the endpoints. Devices of a sandbox that has just left may take the
// kernel a moment: as long as a packet of theirs waits for a neighbour that does not answer, three seconds.
func (s *Service) checkLinks(ctx context.Context, n *network) ([]fsck.Difference, error) {
	const (
		attempts = 60
		pause    = 100 * time.Millisecond
	)
	for attempt := 0; ; attempt++ {
		ports, there, err := s.portsOf(n)
		if err != nil || !there {
			return nil, err
		}
		on := map[string]bool{}
		var found []fsck.Difference
		s.mu.Lock()
		for _, p := range ports {
			on[p.Name] = true
			if _, ok := s.links[p.Name]; !ok && n.device.Created {
				found = append(found, fsck.Difference{
					Area: area, Object: n.Name, Problem: fmt.Sprintf("device %s on bridge %s belongs to no endpoint", p.Name, n.Device),
					Repair: func(context.Context) error { return bridge.Detach(s.nl, p.Name) },
				})
			}
		}
		if len(found) == 0 || attempt == attempts {
			for _, sb := range s.sandboxes {
				if e := sb.endpoint(n.ID); e != nil && !on[e.HostLink] {
					found = append(found, fsck.Difference{
						Area: area, Object: n.Name,
						Problem: fmt.Sprintf("device %s of sandbox %s is missing or not on bridge %s: restart the container", e.HostLink, short(sb.ID), n.Device),
					})
				}
			}
			s.mu.Unlock()
			return found, nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// portsOf lists what is on a network's bridge once nobody puts it back; false: the network is gone.
func (s *Service) portsOf(n *network) (ports []netlink.Link, there bool, err error) {
	s.creating.Lock()
	defer s.creating.Unlock()
	if s.removed(n) {
		return nil, false, nil
	}
	ports, err = s.nl.Links(n.device.Index())
	return ports, true, err
}

// checkRecords looks for records of sandboxes that have not joined. (Those of joined ones are written by the verbs.)
func (s *Service) checkRecords() ([]fsck.Difference, error) {
	var found []fsck.Difference
	err := s.o.DB.View(func(tx *db.Tx) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for key, r := range sandboxes.All(tx) {
			if s.sandboxes[key] == nil {
				found = append(found, fsck.Difference{
					Area: area, Object: key, Problem: "there is a record of a sandbox that has joined no network",
					Repair: func(context.Context) error { return s.erase(key) },
				})
			} else if r.Err != nil {
				found = append(found, fsck.Difference{Area: area, Object: key, Problem: r.Err.Error()})
			}
		}
		return nil
	})
	return found, err
}
