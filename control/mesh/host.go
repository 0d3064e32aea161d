package mesh

import "strings"

// A host name is exact, "*" or "*.suffix".

// HostMatches reports whether two host names overlap in the sense of
// VirtualService and Gateway hosts: one is the other, or is below the other's
// wildcard.
func HostMatches(a, b string) bool {
	switch {
	case a == b, a == "*", b == "*":
		return true
	case isWildcard(a) && isWildcard(b):
		return strings.HasSuffix(a, b[1:]) || strings.HasSuffix(b, a[1:])
	case isWildcard(a):
		return strings.HasSuffix(b, a[1:])
	case isWildcard(b):
		return strings.HasSuffix(a, b[1:])
	}
	return false
}

// HostWithin reports whether every host that inner names is named by outer too.
func HostWithin(inner, outer string) bool {
	if inner == outer || outer == "*" {
		return true
	}
	return isWildcard(outer) && strings.HasSuffix(inner, outer[1:])
}

func isWildcard(host string) bool { return strings.HasPrefix(host, "*") }
