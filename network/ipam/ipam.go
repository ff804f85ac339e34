// Package ipam hands out subnets and addresses. It keeps no records: its callers reserve again what theirs hold.
package ipam

import (
	"net/netip"
)

// Pool is an address range cut into subnets of one size, as in dockerd's --default-address-pool.
type Pool struct {
	Base netip.Prefix // e.g. 172.17.0.0/12
	Size int          // prefix length of each subnet, e.g. 24
}

