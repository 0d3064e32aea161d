package compile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// maxInverted bounds how many conditions a rule may have that a header is not something:
// each doubles the number of its routes.
const maxInverted = 4

// GRPCUnfit is a rule of a VirtualService that gRPC programs cannot carry out as it is.
type GRPCUnfit struct {
	Origin *ir.Origin
	// Lost are the fields that have no effect, in the words of the VirtualService.
	Lost []string
	// Fails is why all calls, or some of them, that the rule matches fail; "" if they do not.
	Fails string
}

// GRPCUnfits lists the rules in the tables of a gRPC program, as GRPCRoutes has them, that
// it cannot carry out as they are.
func GRPCUnfits(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy, names []string) []GRPCUnfit {
	f := newGRPCFit(s, scope, p)
	var out []GRPCUnfit
	for _, name := range names {
		host, subset, port, ok := parseClusterName(name)
		if !ok || subset != "" {
			continue
		}
		f.host, f.port = host, port
		for _, r := range f.tables.grpcRoutes(host, port) {
			u := GRPCUnfit{Origin: r.Origin, Lost: lostFields(r), Fails: f.fails(r)}
			if u.Origin != nil && f.concerns(r) && (u.Fails != "" || len(u.Lost) > 0) {
				out = append(out, u)
			}
		}
	}
	return out
}

// A grpcFit brings the routes of one table into the form that gRPC takes.
type grpcFit struct {
	tables   *sidecarTables
	clusters clusterBuilder
	host     string
	port     uint32
}

func newGRPCFit(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) *grpcFit {
	return &grpcFit{tables: newSidecarTables(s, scope, p), clusters: clusterBuilder{mesh: s, scope: scope, proxy: p}}
}

// route is a route in the form that gRPC takes: none where no call can match it, several
// where its conditions have to be spelled out.
func (f *grpcFit) route(r ir.Route) []ir.Route {
	if !f.concerns(r) {
		return nil
	}
	matches, ok := spellOut(f.headers(r.Match.Headers))
	if !ok || f.failsWhole(r) != "" {
		r.Forward, r.Redirect, r.Direct, r.Fault = nil, nil, &ir.DirectResponse{Status: 500}, nil
	}
	if r.Forward != nil {
		forward := *r.Forward
		forward.Clusters = f.destinations(forward.Clusters)
		r.Forward = &forward
	}
	var out []ir.Route
	for _, headers := range matches {
		next := r
		next.Match.Headers = headers
		out = append(out, next)
	}
	return out
}

// concerns reports whether any call can match: calls have no query, they are POST requests
// of plain text here, and they go to the host that the program has named.
func (f *grpcFit) concerns(r ir.Route) bool {
	if len(r.Match.Query) > 0 {
		return false
	}
	for _, h := range r.Match.Headers {
		values := f.pseudo(h.Name)
		if values != nil && slices.ContainsFunc(values, func(v string) bool { return accepts(h.StringMatch, v) }) == h.Invert {
			return false
		}
	}
	return true
}

// pseudo is what a condition on a part of the request compares with, nil for a header.
func (f *grpcFit) pseudo(name string) []string {
	switch name {
	case ":method":
		return []string{"POST"}
	case ":scheme":
		return []string{"http"}
	case ":authority":
		return []string{fmt.Sprintf("%s:%d", f.host, f.port), f.host}
	}
	return nil
}

func accepts(m ir.StringMatch, value string) bool {
	switch m.Kind {
	case ir.Exact:
		return value == m.Value
	case ir.Prefix:
		return strings.HasPrefix(value, m.Value)
	case ir.Regex:
		re, err := regexp.Compile("^(?:" + m.Value + ")$")
		return err == nil && re.MatchString(value)
	}
	return true
}

// headers are the conditions without those that concerns decides.
func (f *grpcFit) headers(all []ir.HeaderMatch) []ir.HeaderMatch {
	var out []ir.HeaderMatch
	for _, h := range all {
		if f.pseudo(h.Name) == nil {
			h.Name = strings.ToLower(h.Name)
			out = append(out, h)
		}
	}
	return out
}

// spellOut says "is not" in gRPC's words, where a header that is missing is not "not
// something": it is absent, or it is something else. Not ok where that would be too many.
func spellOut(headers []ir.HeaderMatch) (out [][]ir.HeaderMatch, ok bool) {
	out = [][]ir.HeaderMatch{nil}
	inverted := 0
	for _, h := range headers {
		forms := []ir.HeaderMatch{h}
		if h.Invert && h.Kind != ir.Present {
			if inverted++; inverted > maxInverted {
				return [][]ir.HeaderMatch{slices.DeleteFunc(slices.Clone(headers), func(h ir.HeaderMatch) bool { return h.Invert })}, false
			}
			forms = append(forms, ir.HeaderMatch{Name: h.Name, StringMatch: ir.StringMatch{Kind: ir.Present}, Invert: true})
		}
		var next [][]ir.HeaderMatch
		for _, before := range out {
			for _, form := range forms {
				next = append(next, append(slices.Clone(before), form))
			}
		}
		out = next
	}
	return out, true
}

// destinations are the clusters of a route; those that lead nowhere are one.
func (f *grpcFit) destinations(all []ir.WeightedCluster) []ir.WeightedCluster {
	var out []ir.WeightedCluster
	for _, c := range all {
		if f.nowhere(c.Name) != "" {
			c = ir.WeightedCluster{Name: wellknown.BlackHoleCluster, Weight: c.Weight}
		}
		if i := slices.IndexFunc(out, func(o ir.WeightedCluster) bool { return o.Name == c.Name }); i >= 0 {
			out[i].Weight += c.Weight
			continue
		}
		out = append(out, c)
	}
	return out
}

// nowhere is why a cluster cannot be called, "" if it can.
func (f *grpcFit) nowhere(cluster string) string {
	t, err := f.clusters.named(cluster)
	if err != nil {
		return err.Error()
	}
	if why := f.clusters.unreachable(t); why != "" {
		return fmt.Sprintf("gRPC cannot call %s: %s", t.service.Host, why)
	}
	return ""
}

// fails is why calls that a route matches fail, or a share of them.
func (f *grpcFit) fails(r ir.Route) string {
	if why := f.failsWhole(r); why != "" {
		return why
	}
	if _, ok := spellOut(f.headers(r.Match.Headers)); !ok {
		return fmt.Sprintf("more than %d headers without which calls are to come", maxInverted)
	}
	for _, c := range r.Forward.Clusters {
		if why := f.nowhere(c.Name); why != "" {
			return why
		}
	}
	return ""
}

// failsWhole is why every call that a route matches fails.
func (f *grpcFit) failsWhole(r ir.Route) string {
	switch {
	case r.Redirect != nil:
		return "gRPC knows no redirect"
	case r.Direct != nil:
		return "gRPC knows no directResponse"
	case r.Forward.PrefixRewrite != "" || r.Forward.RegexRewrite != nil:
		return "gRPC cannot rewrite the uri, which is the method that is called"
	}
	return ""
}

// lostFields are the fields of a rule that have no effect on gRPC calls.
func lostFields(r ir.Route) []string {
	var out []string
	edits := func(h ir.HeaderEdits) bool {
		return len(h.RequestAdd)+len(h.RequestRemove)+len(h.ResponseAdd)+len(h.ResponseRemove) > 0
	}
	rewrites, edited := false, edits(r.Headers)
	if r.Forward != nil {
		rewrites = r.Forward.HostRewrite != ""
		for _, c := range r.Forward.Clusters {
			rewrites, edited = rewrites || c.HostRewrite != "", edited || edits(c.Headers)
		}
	}
	for _, field := range []struct {
		name string
		used bool
	}{
		{"headers", edited},
		{"rewrite.authority", rewrites},
		{"mirror", r.Forward != nil && len(r.Forward.Mirrors) > 0},
		{"retries.perTryTimeout", r.Forward != nil && r.Forward.Retry != nil && r.Forward.Retry.PerTryTimeout > 0},
	} {
		if field.used {
			out = append(out, field.name)
		}
	}
	return out
}
