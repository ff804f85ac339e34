package network

import (
	"context"
	"os"

	"gantry/errdefs"
	"gantry/fsck"
)

// Service owns the networks of one daemon. Its methods may be called concurrently.
type Service struct{}

// Open creates or finds the default network and everything on record, and fills the pool in the background. Call
// Restore before the first Join.
func Open(ctx context.Context, o Options) (*Service, error) {
	return nil, errdefs.New(errdefs.NotImplemented, "networks are not there yet")
}

// Close ends what runs in the daemon: pool, resolvers, port holders. Sandboxes that still run keep their network;
// bridges and rules that none needs are removed.
func (s *Service) Close() error { return nil }

// Create makes a network.
func (s *Service) Create(ctx context.Context, c CreateConfig) (*Network, error) {
	return nil, errdefs.New(errdefs.NotImplemented, "networks are not there yet")
}

// Get finds a network by name, ID or unique prefix of an ID.
func (s *Service) Get(ctx context.Context, ref string) (*Network, error) {
	return nil, errdefs.New(errdefs.NotFound, "network %s not found", ref)
}

// List returns all networks, by name.
func (s *Service) List(ctx context.Context) ([]*Network, error) { return nil, nil }

// Remove removes a network without endpoints.
func (s *Service) Remove(ctx context.Context, ref string) error {
	return errdefs.New(errdefs.NotFound, "network %s not found", ref)
}

// Prune removes the user's networks that have no endpoints and for which match (nil: any) holds; it returns their names.
func (s *Service) Prune(ctx context.Context, match func(*Network) bool) ([]string, error) {
	return nil, nil
}

// Sandboxes returns the sandboxes that have joined the network with that ID; all for "".
func (s *Service) Sandboxes(networkID string) []Sandbox { return nil }

// Sandbox returns what a sandbox has joined, or an error of kind NotFound.
func (s *Service) Sandbox(id string) (Sandbox, error) {
	return Sandbox{}, errdefs.New(errdefs.NotFound, "no such sandbox: %s", id)
}

// Join gives a sandbox its namespace with all its endpoints and published ports.
func (s *Service) Join(ctx context.Context, c SandboxConfig) (*Namespace, error) {
	return nil, errdefs.New(errdefs.NotImplemented, "networks are not there yet")
}

// Leave takes everything back that Join and Connect gave. It is idempotent.
func (s *Service) Leave(ctx context.Context, sandboxID string) error { return nil }

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
