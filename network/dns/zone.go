// Package dns resolves the names of sandboxes inside their namespaces: each has a server at 127.0.0.11 that knows the
// names of the sandbox's networks and forwards all others.
//
// It is built on golang.org/x/net/dns/dnsmessage: small, hardened by fuzzing, and enough for a server that writes only
// A, AAAA and PTR records and passes everything else on unread.
package dns

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Zone holds the names of one network. Its methods may be called concurrently.
type Zone struct {
	name string

	mu    sync.RWMutex // guards all below
	names map[string][]entry
	addrs map[netip.Addr]string // address -> first name
}

type entry struct {
	owner string
	addrs []netip.Addr
}

// NewZone returns an empty zone for the network of that name.
func NewZone(name string) *Zone {
	return &Zone{name: canonical(name), names: map[string][]entry{}, addrs: map[netip.Addr]string{}}
}

// Add makes the names resolve to the addresses (zero ones are left out), in place of what the owner had before. Names
// that several owners have resolve to the addresses of all.
func (z *Zone) Add(owner string, names []string, addrs ...netip.Addr) {
	addrs = slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !a.IsValid() })
	z.mu.Lock()
	defer z.mu.Unlock()
	z.remove(owner)
	for i, n := range names {
		n = canonical(n)
		z.names[n] = append(z.names[n], entry{owner, addrs})
		for _, a := range addrs {
			if i == 0 {
				z.addrs[a] = n
			}
		}
	}
}

// Remove takes the owner's names away.
func (z *Zone) Remove(owner string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.remove(owner)
}

func (z *Zone) remove(owner string) {
	for name, entries := range z.names {
		kept := slices.DeleteFunc(entries, func(e entry) bool {
			if e.owner != owner {
				return false
			}
			for _, a := range e.addrs {
				delete(z.addrs, a)
			}
			return true
		})
		if len(kept) == 0 {
			delete(z.names, name)
		} else {
			z.names[name] = kept
		}
	}
}

// Lookup returns the addresses of a name, with or without the network's name behind it, and whether the name is known.
func (z *Zone) Lookup(name string) ([]netip.Addr, bool) {
	name = canonical(name)
	z.mu.RLock()
	defer z.mu.RUnlock()
	entries, ok := z.names[name]
	if !ok {
		entries, ok = z.names[strings.TrimSuffix(name, "."+z.name)]
	}
	var addrs []netip.Addr
	for _, e := range entries {
		addrs = append(addrs, e.addrs...)
	}
	return addrs, ok
}

// Reverse returns the name of an address, with the network's name behind it.
func (z *Zone) Reverse(a netip.Addr) (string, bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	name, ok := z.addrs[a]
	return name + "." + z.name, ok
}

// canonical makes names comparable.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
