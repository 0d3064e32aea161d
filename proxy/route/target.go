package route

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

// Aim makes t the target of a decision: a cluster by weight is chosen with the random
// number that chose the route, a cluster named by a header is asked of header.
func (t *Target) Aim(d Decision, random uint64, header func(name []byte) []byte) {
	t.Decision, t.Cluster, t.Weighted = d, "", nil
	if d.Route == nil || d.Route.Forward == nil {
		return
	}
	f := d.Route.Forward
	switch {
	case f.Cluster != "":
		t.Cluster = f.Cluster
	case len(f.ClusterHeader) > 0:
		t.Cluster = string(header(f.ClusterHeader))
	default:
		t.Weighted = f.Pick(random)
		if t.Weighted != nil {
			t.Cluster = t.Weighted.Name
		}
	}
}
