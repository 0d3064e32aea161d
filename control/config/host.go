package config

import "strings"

// A host of a VirtualService, Gateway, ServiceEntry or DestinationRule is exact, "*" or
// "*.suffix".

// HostsOverlap reports whether some name is of both hosts.
func HostsOverlap(a, b string) bool {
	sa, wa := strings.CutPrefix(a, "*")
	sb, wb := strings.CutPrefix(b, "*")
	switch {
	case wa && wb:
		return strings.HasSuffix(sa, sb) || strings.HasSuffix(sb, sa)
	case wa:
		return strings.HasSuffix(b, sa)
	case wb:
		return strings.HasSuffix(a, sb)
	}
	return a == b
}

// HostWithin reports whether every name of inner is one of outer too.
func HostWithin(inner, outer string) bool {
	so, wo := strings.CutPrefix(outer, "*")
	si, wi := strings.CutPrefix(inner, "*")
	switch {
	case wo && wi:
		return strings.HasSuffix(si, so)
	case wo:
		return strings.HasSuffix(inner, so)
	case wi:
		return false
	}
	return inner == outer
}
