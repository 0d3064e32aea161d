package route

import (
	"slices"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// A Target is where a stream goes: the decision, and of a forwarding route the
// cluster that was chosen among the weighted ones. The connection manager fills it
// before the first filter runs; filters see it as http.RouteConfig, the router as
// what it is.
type Target struct {
	Decision
	Cluster  string           // "" without a forwarding route
	Weighted *WeightedCluster // nil unless chosen by weight
}

// RouteName is ROUTE_NAME.
func (t *Target) RouteName() string {
	if t.Route == nil {
		return ""
	}
	return t.Route.Name
}

// RouteMetadata is filter_metadata of the matched route, as log formats read it.
func (t *Target) RouteMetadata() map[string]map[string]any {
	if t.Route == nil {
		return nil
	}
	return t.Route.Metadata
}

// HostMetadata is filter_metadata of the virtual host, likewise.
func (t *Target) HostMetadata() map[string]map[string]any {
	if t.VirtualHost == nil {
		return nil
	}
	return t.VirtualHost.Metadata
}

// Subset is the metadata that endpoints must have, by metadata_match of the route and of
// the weighted cluster; nil for any.
func (t *Target) Subset() map[string]any {
	switch {
	case t.Weighted != nil:
		return t.Weighted.Subset
	case t.Route != nil && t.Route.Forward != nil:
		return t.Route.Forward.Subset
	}
	return nil
}

// Life is how long the stream may last: what grpc-timeout says where the route heeds it, which
// then tells the upstream of what is left, or what the route says; negative when it does not.
func (t *Target) Life(s *http.Stream) time.Duration {
	if t.Route == nil || t.Route.Forward == nil {
		return -1
	}
	d := &t.Route.Forward.Duration
	if d.GRPCMaxSet {
		if asked, ok := http.ParseGRPCTimeout(s.Request.Headers.Get("grpc-timeout")); ok {
			return d.asked(asked, s)
		}
	}
	if d.MaxSet {
		return d.Max
	}
	return -1
}

// asked is the deadline that a client asks for, as far as it may.
func (d *StreamDuration) asked(life time.Duration, s *http.Stream) time.Duration {
	if d.GRPCMax > 0 && life > d.GRPCMax {
		life = d.GRPCMax
	}
	if d.GRPCOffset < life {
		life -= d.GRPCOffset
	}
	if life > 0 {
		s.Request.Headers.Set("grpc-timeout", s.Keep(http.AppendGRPCTimeout(s.Scratch(), life)))
	}
	return life
}

// Overrides are all compiled typed_per_filter_config entries of a filter, from the weighted
// cluster to the route table, or the other way round.
func (t *Target) Overrides(filter string, tableFirst bool) []any {
	var all []any
	add := func(level map[string]any) {
		if v := level[filter]; v != nil {
			all = append(all, v)
		}
	}
	if t.Weighted != nil {
		add(t.Weighted.PerFilter)
	}
	if t.Route != nil {
		add(t.Route.PerFilter)
	}
	if t.VirtualHost != nil {
		add(t.VirtualHost.PerFilter)
	}
	if t.Table != nil {
		add(t.Table.PerFilter)
	}
	if tableFirst {
		slices.Reverse(all)
	}
	return all
}

// By is the target of a request in a table, that of no route where table is nil; r hears how
// the route was chosen, nil for nobody. A cluster by weight is chosen with the random number
// that chose the route, unless the route has another source.
func By(table *Table, f *Facts, r *Recorder) (t Target) {
	if table == nil {
		return t
	}
	t.Decision = table.Select(f, r)
	t.aim(f)
	return t
}

// aim chooses the cluster.
func (t *Target) aim(f *Facts) {
	if t.Route == nil || t.Route.Forward == nil {
		return
	}
	to := t.Route.Forward
	switch {
	case to.Cluster != "":
		t.Cluster = to.Cluster
	case len(to.ClusterHeader) > 0:
		t.Cluster = named(f, text(to.ClusterHeader))
	default:
		t.Weighted = to.Pick(to.number(f))
		if t.Weighted == nil {
			return
		}
		if t.Cluster = t.Weighted.Name; t.Cluster == "" {
			t.Cluster = named(f, t.Weighted.Header)
		}
	}
}

// named is the cluster that a header of the request names, "" for none.
func named(f *Facts, header string) string {
	v, _ := f.Request.First(header)
	return string(v)
}

// number is what the weighted cluster is chosen by.
func (to *Forward) number(f *Facts) uint64 {
	switch {
	case to.HashWeights && f.Info != nil:
		if h, _, ok := to.Hash(f.Request, f.Info); ok {
			return h
		}
	case to.RandomHeader != "":
		v, _ := f.Request.First(to.RandomHeader)
		if n, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return n
		}
	}
	return f.Random
}
