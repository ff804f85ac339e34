package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"gantry/linux/netns"
	"gantry/network/publish"
)

// Restore takes up the sandboxes on record after a restart: live has the pid of a process of each one that still runs;
// what others held is freed. What cannot be taken up again, such as a port that another program took meanwhile, is
// logged: the sandbox runs on.
func (s *Service) Restore(ctx context.Context, live map[string]int) error {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.sandboxes))
	s.mu.Unlock()
	var errs []error
	var kept []*sandbox
	for _, sb := range all {
		sb.mu.Lock()
		pid := live[sb.ID]
		err := errors.New("its processes have ended")
		if pid > 0 {
			err = s.reopen(sb, pid)
		}
		if err == nil {
			kept = append(kept, sb)
		} else {
			s.log.InfoContext(ctx, "network of a sandbox is freed", "sandbox", sb.ID, "reason", err)
			if err := s.leave(sb); err != nil {
				errs = append(errs, fmt.Errorf("free the network of sandbox %s: %w", sb.ID, err))
			}
		}
		sb.mu.Unlock()
	}
	for _, sb := range kept { // all names are known by now
		sb.mu.Lock()
		s.rehold(ctx, sb)
		if err := s.resolve(sb); err != nil {
			s.log.ErrorContext(ctx, "sandbox has no DNS server", "sandbox", sb.ID, "error", err)
		}
		sb.mu.Unlock()
	}
	return errors.Join(errs...)
}

// reopen opens the namespace of a sandbox that runs and makes its names resolve; the caller holds its mu.
func (s *Service) reopen(sb *sandbox, pid int) error {
	s.mu.Lock()
	nets := s.networksOf(sb)
	s.mu.Unlock()
	if !slices.ContainsFunc(nets, func(n *network) bool { return n.Driver == Host }) {
		ns, err := netns.OfProcess(pid)
		if err != nil {
			return err
		}
		sb.ns = ns
	}
	for _, n := range nets {
		s.announce(sb, n)
	}
	return nil
}

// rehold takes the host's ports again; the firewall has them already.
func (s *Service) rehold(ctx context.Context, sb *sandbox) {
	type one struct {
		proto string
		port  uint16
		to    uint16
	}
	requests := map[one]publish.Request{}
	for _, p := range sb.Open {
		k := one{p.Proto, p.HostPort, p.ContainerPort}
		r := requests[k]
		r.Proto, r.First, r.Target = p.Proto, p.HostPort, p.Target
		r.Hosts = append(r.Hosts, p.HostAddr)
		requests[k] = r
	}
	for _, r := range requests {
		h, err := s.ports.Hold(r)
		if err != nil {
			s.log.WarnContext(ctx, "published port cannot be held again; connections are still redirected", "sandbox", sb.ID, "error", err)
			continue
		}
		sb.held = append(sb.held, h)
	}
}
