package listener

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// chainMatch is a compiled FilterChainMatch. Empty lists and zero values match all.
type chainMatch struct {
	port          uint32
	prefixes      []netip.Prefix
	serverNames   []string // exact, or ".suffix" for "*.suffix"
	transport     string
	protocols     []string
	directSources []netip.Prefix
	sourceType    listenerpb.FilterChainMatch_ConnectionSourceType
	sources       []netip.Prefix
	sourcePorts   []uint32
}

// errUnimplemented: Envoy does not know them either (address_suffix, suffix_len).
var errUnimplemented = errors.New("contains unimplemented fields")

func compileChainMatch(m *listenerpb.FilterChainMatch) (chainMatch, error) {
	c := chainMatch{
		port: m.GetDestinationPort().GetValue(), transport: m.GetTransportProtocol(), protocols: m.GetApplicationProtocols(),
		sourceType: m.GetSourceType(), sourcePorts: m.GetSourcePorts(),
	}
	var err error
	if c.prefixes, err = compilePrefixes("prefix_ranges", m.GetPrefixRanges()); err != nil {
		return c, err
	}
	if c.directSources, err = compilePrefixes("direct_source_prefix_ranges", m.GetDirectSourcePrefixRanges()); err != nil {
		return c, err
	}
	if c.sources, err = compilePrefixes("source_prefix_ranges", m.GetSourcePrefixRanges()); err != nil {
		return c, err
	}
	if m.GetAddressSuffix() != "" || m.GetSuffixLen() != nil {
		return c, errUnimplemented
	}
	for _, name := range m.GetServerNames() {
		compiled, err := compileServerName(name)
		if err != nil {
			return c, err
		}
		c.serverNames = append(c.serverNames, compiled)
	}
	return c, nil
}

// compileServerName turns "*.a.test" into ".a.test". Envoy refuses other wildcards.
func compileServerName(name string) (string, error) {
	suffix, wild := strings.CutPrefix(name, "*.")
	switch {
	case name == "*" || strings.Contains(suffix, "*"):
		return "", fmt.Errorf("server_names: partial wildcards are not supported in \"%s\"", name)
	case wild:
		return "." + strings.ToLower(suffix), nil
	}
	return strings.ToLower(name), nil
}

func compilePrefixes(field string, list []*corepb.CidrRange) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, r := range list {
		a, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: malformed IP address: %s", field, i, r.GetAddressPrefix())
		}
		p, err := a.Prefix(min(int(r.GetPrefixLen().GetValue()), a.BitLen()))
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// A criterion is one thing that chains may ask of a connection.
type criterion struct {
	name  string
	score func(*chainMatch, *accepted) int
	wants func(*chainMatch) string // what a chain asks for, "" for nothing
	has   func(*accepted) string
}

// Envoy decides criterion by criterion, in this order; of each the most specific that
// any remaining chain names wins, and chains without it fall out for good: there is
// no going back to a chain that lost an earlier criterion.
var criteria = [...]criterion{
	{
		"destination port", func(m *chainMatch, a *accepted) int { return orAny(m.port == 0, m.port == uint32(a.local.Port())) },
		func(m *chainMatch) string { return named(m.port) }, func(a *accepted) string { return strconv.Itoa(int(a.local.Port())) },
	},
	{
		"destination address", func(m *chainMatch, a *accepted) int { return longest(m.prefixes, a.local.Addr()) },
		func(m *chainMatch) string { return listed(m.prefixes) }, func(a *accepted) string { return a.local.Addr().String() },
	},
	{
		"server name", func(m *chainMatch, a *accepted) int { return m.serverName(a.serverName) },
		func(m *chainMatch) string { return listed(m.serverNames) }, func(a *accepted) string { return strconv.Quote(a.serverName) },
	},
	{
		"transport protocol", func(m *chainMatch, a *accepted) int { return orAny(m.transport == "", m.transport == a.transport) },
		func(m *chainMatch) string { return m.transport }, func(a *accepted) string { return a.transport },
	},
	{
		"application protocol", func(m *chainMatch, a *accepted) int { return m.protocol(a.protocols) },
		func(m *chainMatch) string { return listed(m.protocols) },
		func(a *accepted) string { return cmp.Or(strings.Join(a.protocols, ", "), "not known") },
	},
	{
		"direct source address", func(m *chainMatch, a *accepted) int { return longest(m.directSources, a.direct.Addr()) },
		func(m *chainMatch) string { return listed(m.directSources) }, func(a *accepted) string { return a.direct.Addr().String() },
	},
	{
		"source type", func(m *chainMatch, a *accepted) int { return m.source(a) },
		func(m *chainMatch) string { return named(m.sourceType) }, func(a *accepted) string { return a.sourceType().String() },
	},
	{
		"source address", func(m *chainMatch, a *accepted) int { return longest(m.sources, a.remote.Addr()) },
		func(m *chainMatch) string { return listed(m.sources) }, func(a *accepted) string { return a.remote.Addr().String() },
	},
	{
		"source port", func(m *chainMatch, a *accepted) int { return m.sourcePort(uint32(a.remote.Port())) },
		func(m *chainMatch) string { return listed(m.sourcePorts) }, func(a *accepted) string { return strconv.Itoa(int(a.remote.Port())) },
	},
}

// A score: -1 excludes, 0 is a match by not asking, more is more specific.
const excluded = -1

func orAny(unset, match bool) int {
	switch {
	case unset:
		return 0
	case match:
		return 1
	}
	return excluded
}

func longest(prefixes []netip.Prefix, a netip.Addr) int {
	if len(prefixes) == 0 {
		return 0
	}
	best := excluded
	for _, p := range prefixes {
		if p.Contains(a) {
			best = max(best, 1+p.Bits())
		}
	}
	return best
}

// serverName: an exact name beats every wildcard, a longer wildcard a shorter one.
func (m *chainMatch) serverName(sni string) int {
	if len(m.serverNames) == 0 {
		return 0
	}
	best := excluded
	for _, name := range m.serverNames {
		switch {
		case name == "": // any, as in Envoy
			best = max(best, 0)
		case name == sni:
			return 1 << 20
		case name[0] == '.' && len(sni) > len(name) && strings.HasSuffix(sni, name):
			best = max(best, len(name))
		}
	}
	return best
}

// protocol: the client's first protocol that any chain names wins.
func (m *chainMatch) protocol(offered []string) int {
	if len(m.protocols) == 0 {
		return 0
	}
	for i, p := range offered {
		if slices.Contains(m.protocols, p) {
			return 1<<20 - i
		}
	}
	return excluded
}

func (m *chainMatch) source(a *accepted) int {
	return orAny(m.sourceType == listenerpb.FilterChainMatch_ANY, m.sourceType == a.sourceType())
}

func (m *chainMatch) sourcePort(port uint32) int {
	if len(m.sourcePorts) == 0 {
		return 0
	}
	if slices.Contains(m.sourcePorts, port) {
		return 1
	}
	return excluded
}

// sourceType tells a client on this machine from one elsewhere.
func (a *accepted) sourceType() listenerpb.FilterChainMatch_ConnectionSourceType {
	if a.remote.Addr().IsLoopback() || a.remote.Addr() == a.local.Addr() || !a.remote.IsValid() {
		return listenerpb.FilterChainMatch_SAME_IP_OR_LOOPBACK
	}
	return listenerpb.FilterChainMatch_EXTERNAL
}

// choose returns the chain for a connection, nil when none matches. r is nil in the running
// proxy.
func choose(chains []*chain, fallback *chain, a *accepted, r *Recorder) *chain {
	var buf [64]*chain
	left := append(buf[:0], chains...)
	for i := range criteria {
		by := &criteria[i]
		if r != nil {
			r.criterion(by, left, a)
		}
		best, kept := 0, left[:0]
		for _, c := range left {
			switch n := by.score(&c.match, a); {
			case n == excluded || n < best:
			case n > best:
				best, kept = n, append(left[:0], c)
			default:
				kept = append(kept, c)
			}
		}
		left = kept
	}
	if len(left) == 0 {
		r.chosen(fallback, "no other filter chain matches")
		return fallback
	}
	r.chosen(left[0], "")
	return left[0]
}
