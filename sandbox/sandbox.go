// Package sandbox makes what containers share: the network namespace with its endpoints, and the files that say in it
// who and where one is (/etc/hosts, /etc/hostname, /etc/resolv.conf).
package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"gantry/network"
)

// Config says what a sandbox is to be.
type Config struct {
	ID         string // the first container's: 64 hexadecimal digits
	Dir        string // where its files are kept; exists
	Hostname   string
	Domainname string
	ExtraHosts []string // name:address
	Linked     []Linked // other containers, by further names
	DNS        []netip.Addr
	DNSSearch  []string
	DNSOptions []string
	Network    network.SandboxConfig // ID, DNS fields and ExtraHosts are filled in from the others
}

// Linked is another container under the names by which this one knows it.
type Linked struct {
	Names   []string
	Address netip.Addr
}

// Sandbox is a sandbox that is ready for its first container.
type Sandbox struct {
	Netns     *os.File // nil on the host's network; the caller passes it on and closes it
	Endpoints []network.Endpoint
	Ports     []network.Published
}

// Files are the paths of a sandbox's files.
type Files struct{ Hosts, Hostname, ResolvConf string }

// FilesIn returns where the sandbox kept in dir has its files.
func FilesIn(dir string) Files {
	return Files{filepath.Join(dir, "hosts"), filepath.Join(dir, "hostname"), filepath.Join(dir, "resolv.conf")}
}

// networks is the part of network.Service that sandboxes use.
type networks interface {
	Join(ctx context.Context, c network.SandboxConfig) (*network.Namespace, error)
	Leave(ctx context.Context, sandboxID string) error
}

// Service makes and unmakes sandboxes. It keeps no state: networks have records of their own, and the rest is files.
type Service struct {
	networks networks
	gateway  func(context.Context) netip.Addr // what the name host-gateway stands for
}

// New returns a service on top of the networks. gateway returns the address that "host-gateway" in ExtraHosts means.
func New(n *network.Service, gateway func(context.Context) netip.Addr) *Service {
	return &Service{n, gateway}
}

// Ensure joins the sandbox's networks and writes its files. After an error nothing is left joined.
func (s *Service) Ensure(ctx context.Context, c Config) (*Sandbox, error) {
	hosts, err := s.resolveHosts(ctx, c.ExtraHosts)
	if err != nil {
		return nil, err
	}
	c.Network.ID, c.Network.DNS = c.ID, c.DNS
	c.Network.ExtraHosts = map[string][]netip.Addr{}
	for _, h := range hosts {
		c.Network.ExtraHosts[h.name] = append(c.Network.ExtraHosts[h.name], h.address)
	}
	ns, err := s.networks.Join(ctx, c.Network)
	if err != nil {
		return nil, err
	}
	if err := s.writeFiles(c, ns, hosts); err != nil {
		if ns.File != nil {
			_ = ns.File.Close() // only a descriptor
		}
		return nil, fmt.Errorf("write the files of sandbox %s: %w", c.ID, errors.Join(err, s.networks.Leave(context.WithoutCancel(ctx), c.ID)))
	}
	return &Sandbox{Netns: ns.File, Endpoints: ns.Endpoints, Ports: ns.Ports}, nil
}

// Refresh writes /etc/hosts anew after the sandbox's networks changed, and resolv.conf where its resolver came or went.
func (s *Service) Refresh(ctx context.Context, c Config, now network.Sandbox) error {
	hosts, err := s.resolveHosts(ctx, c.ExtraHosts)
	if err != nil {
		return err
	}
	files := FilesIn(c.Dir)
	if err := rewrite(files.Hosts, hostsFile(c, now.Endpoints, hosts)); err != nil {
		return err
	}
	have, err := os.ReadFile(files.ResolvConf)
	if err != nil {
		return err
	}
	if bytes.Contains(have, []byte(resolverLine)) == now.Resolver.IsValid() || !bytes.HasPrefix(have, []byte(resolvHeader)) {
		return nil // right already, or the container's own
	}
	host, err := hostResolvConf()
	if err != nil {
		return err
	}
	return rewrite(files.ResolvConf, resolvConf(host, c, true, now.Resolver))
}

// Leave gives everything back. It is idempotent.
func (s *Service) Leave(ctx context.Context, id string) error { return s.networks.Leave(ctx, id) }
