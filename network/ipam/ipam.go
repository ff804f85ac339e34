// Package ipam hands out subnets and addresses. It keeps no records: its callers reserve again what theirs hold.
package ipam

import (
	"net/netip"
	"sync"

	"gantry/errdefs"
)

// Pool is an address range cut into subnets of one size, as in dockerd's --default-address-pool.
type Pool struct {
	Base netip.Prefix // e.g. 172.20.0.0/14
	Size int          // prefix length of each subnet, e.g. 24
}

// DefaultPools returns the pools for networks without a subnet: many subnets of 4094 addresses, then of 254.
func DefaultPools() []Pool {
	return []Pool{
		{netip.MustParsePrefix("172.19.0.0/16"), 20},
		{netip.MustParsePrefix("172.20.0.0/14"), 20},
		{netip.MustParsePrefix("172.24.0.0/13"), 20},
		{netip.MustParsePrefix("192.168.0.0/16"), 24},
	}
}

// Bridges returns the pools for the default network: whole /16s.
func Bridges() []Pool {
	return []Pool{
		{netip.MustParsePrefix("172.18.0.0/16"), 16},
		{netip.MustParsePrefix("172.20.0.0/14"), 16},
		{netip.MustParsePrefix("172.24.0.0/13"), 16},
		{netip.MustParsePrefix("10.88.0.0/13"), 16},
	}
}

// Free returns the first subnet of the pools that overlaps none of those in use, or an error of kind Exhausted.
func Free(pools []Pool, used []netip.Prefix) (netip.Prefix, error) {
	for _, p := range pools {
		if p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
			continue
		}
		at := p.Base.Masked().Addr()
		for at.IsValid() && p.Base.Contains(at) {
			subnet := netip.PrefixFrom(at, p.Size)
			taken := overlapping(subnet, used)
			if !taken.IsValid() {
				return subnet, nil
			}
			if taken.Bits() < p.Size { // a larger one: go on behind it
				subnet = taken
			}
			at = Last(subnet).Next()
		}
	}
	return netip.Prefix{}, errdefs.New(errdefs.Exhausted, "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network")
}

func overlapping(p netip.Prefix, used []netip.Prefix) netip.Prefix {
	for _, u := range used {
		if u.Overlaps(p) {
			return u.Masked()
		}
	}
	return netip.Prefix{}
}

// Last returns the highest address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := max(p.Bits(), 0); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Range hands out the addresses of one subnet. An address just freed is not handed out again before the others were.
// Its methods may be called concurrently.
type Range struct {
	subnet netip.Prefix
	from   netip.Prefix // the part from which Allocate chooses

	mu    sync.Mutex // guards all below
	taken map[netip.Addr]struct{}
	next  netip.Addr
}

// NewRange makes the range of a subnet; Allocate chooses from the part (zero: the whole).
func NewRange(subnet, part netip.Prefix) *Range {
	if !part.IsValid() {
		part = subnet
	}
	r := &Range{subnet: subnet.Masked(), from: part.Masked(), taken: map[netip.Addr]struct{}{}}
	r.next = r.from.Addr()
	return r
}

// Subnet returns the subnet.
func (r *Range) Subnet() netip.Prefix { return r.subnet }

// Reserve takes an address of the subnet that was asked for.
func (r *Range) Reserve(a netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.usable(a) {
		return errdefs.New(errdefs.InvalidParameter, "no configured subnet contains IP address %s", a)
	}
	if _, ok := r.taken[a]; ok {
		return errdefs.New(errdefs.Forbidden, "Address already in use")
	}
	r.taken[a] = struct{}{}
	return nil
}

// Allocate takes any free address.
func (r *Range) Allocate() (netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	start := r.next
	for {
		a := r.next
		if r.next = a.Next(); !r.next.IsValid() || !r.from.Contains(r.next) {
			r.next = r.from.Addr()
		}
		if _, ok := r.taken[a]; !ok && r.usable(a) {
			r.taken[a] = struct{}{}
			return a, nil
		}
		if r.next == start {
			return netip.Addr{}, errdefs.New(errdefs.Exhausted, "no available IPv4 addresses on this network's address pools: all of %s are in use", r.from)
		}
	}
}

// Release frees an address.
func (r *Range) Release(a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.taken, a)
}

// usable excludes the subnet's own address and, for IPv4, its broadcast address.
func (r *Range) usable(a netip.Addr) bool {
	if !r.subnet.Contains(a) {
		return false
	}
	if r.subnet.Bits() >= a.BitLen()-1 {
		return true
	}
	return a != r.subnet.Addr() && (a.Is6() || a != Last(r.subnet))
}
