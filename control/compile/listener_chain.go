package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/lateen-mesh/lateen/control/ir"
)

// distinctChains drops the addresses and server names that an earlier chain of the
// same further conditions has, and chains that are left with nothing to match: a
// proxy refuses a listener whole in which two chains match the same connections.
func distinctChains(chains []ir.FilterChain) []ir.FilterChain {
	seen := map[string]bool{}
	var out []ir.FilterChain
	for _, c := range chains {
		for _, m := range unmatched(c.Match, seen) {
			c.Match = m
			out = append(out, c)
		}
	}
	return out
}

// unmatched is what a match adds to those before it: nothing, one match, or several
// where different server names are left for different addresses.
func unmatched(m ir.ChainMatch, seen map[string]bool) []ir.ChainMatch {
	further := fmt.Sprint(m.DestinationPort, m.TransportProtocol, m.ApplicationProtocols)
	var out []ir.ChainMatch
	for _, cidr := range orNone(m.DestinationCIDRs) {
		var names []string
		for _, name := range orNone(m.ServerNames) {
			key := fmt.Sprintf("%s %s %s", further, network(cidr), name)
			if !seen[key] {
				seen[key] = true
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		if last := len(out) - 1; last >= 0 && slices.Equal(orNone(out[last].ServerNames), names) {
			out[last].DestinationCIDRs = append(out[last].DestinationCIDRs, cidr)
			continue
		}
		part := m
		part.DestinationCIDRs, part.ServerNames = given(cidr, m.DestinationCIDRs), names
		if len(m.ServerNames) == 0 {
			part.ServerNames = nil
		}
		out = append(out, part)
	}
	return out
}

// orNone stands in for no condition with one that is empty.
func orNone(conditions []string) []string {
	if len(conditions) == 0 {
		return []string{""}
	}
	return conditions
}

func given(condition string, of []string) []string {
	if len(of) == 0 {
		return nil
	}
	return []string{condition}
}

// network is one spelling for all of a block of addresses.
func network(cidr string) string {
	if p, err := netip.ParsePrefix(cidr); err == nil {
		return p.Masked().String()
	}
	if a, err := netip.ParseAddr(cidr); err == nil {
		return netip.PrefixFrom(a, a.BitLen()).String()
	}
	return cidr
}
