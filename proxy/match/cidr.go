package match

import (
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// A CIDR is a list of address ranges; it matches what is in any of them.
type CIDR []netip.Prefix

// NewCIDR compiles ranges. Bits of the address beyond prefix_len are ignored, as
// Envoy ignores them.
func NewCIDR(ranges ...*corev3.CidrRange) (CIDR, error) {
	list := make(CIDR, 0, len(ranges))
	for i, r := range ranges {
		addr, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil {
			return nil, fmt.Errorf("[%d].address_prefix: %w", i, err)
		}
		p, err := addr.Prefix(int(r.GetPrefixLen().GetValue()))
		if err != nil {
			return nil, fmt.Errorf("[%d].prefix_len: %d is too long for %s", i, r.GetPrefixLen().GetValue(), addr)
		}
		list = append(list, p)
	}
	return list, nil
}

// Match reports whether addr is in one of the ranges. An IPv4 address in IPv6 form, as a
// header may have it, is an IPv6 address, as in Envoy; those of sockets come in IPv4's form.
func (c CIDR) Match(addr netip.Addr) bool {
	for _, p := range c {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
