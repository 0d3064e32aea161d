package ads

import (
	"slices"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/wellknown"
)

// A gRPC program that speaks xDS itself asks for the clusters that its routes name, and it
// sends calls by new routes a moment before it has made the clusters that are new in them:
// such calls fail. So it gets the routes that it has once more first, with one that no call
// matches to the new clusters, and the new routes when it has taken these clusters and their
// endpoints.

// aheadTime bounds how long new routes wait for clusters.
const aheadTime = time.Second

// aheadHeader is one that is to be there and not to be there, so that no call matches.
const aheadHeader = "x-lateen-ahead"

// ahead is what a conn of a gRPC program knows of its routes.
type ahead struct {
	tables map[string]Resource // the last ones sent, as they were made
	until  time.Time           // when new routes go on; zero: none wait
}

// waits reports that routes which are newer than the program's wait for clusters.
func (a *ahead) waits() bool { return !a.until.IsZero() }

// announce replaces the tables that name clusters which the program lacks by those that it
// has, with these clusters added.
func (c *conn) announce(w *watch, resources []Resource) ([]Resource, error) {
	if w.URL != wellknown.RouteType || !c.proxy.IsGRPC() {
		return resources, nil
	}
	over := c.ahead.waits() && !time.Now().Before(c.ahead.until)
	next, waits := make(map[string]Resource, len(resources)), false
	out := slices.Clone(resources)
	for i, r := range resources {
		next[r.Name] = r
		before, has := c.ahead.tables[r.Name]
		if !has || before.Version == r.Version || over {
			continue
		}
		table, err := withClusters(before, r, c.has)
		if err != nil {
			return nil, err
		}
		if table != nil {
			out[i], next[r.Name], waits = *table, before, true
		}
	}
	c.ahead.tables = next
	switch {
	case !waits:
		c.ahead.until = time.Time{}
	case !c.ahead.waits():
		c.ahead.until = time.Now().Add(aheadTime)
	}
	return out, nil
}

// withClusters is a table with routes for the clusters of the next one; nil if the program has
// them all.
func withClusters(table, next Resource, has func(string) bool) (*Resource, error) {
	var now, then routepb.RouteConfiguration
	if err := next.Body.UnmarshalTo(&then); err != nil {
		return nil, err
	}
	names := clustersOf(&then)
	if !slices.ContainsFunc(names, func(n string) bool { return !has(n) }) {
		return nil, nil
	}
	if err := table.Body.UnmarshalTo(&now); err != nil {
		return nil, err
	}
	there := clustersOf(&now)
	for _, v := range now.VirtualHosts {
		for _, n := range names { // all of them until the last is taken: it drops what no route names
			if !slices.Contains(there, n) {
				v.Routes = append(v.Routes, never(n))
			}
		}
	}
	r, err := NewResource(table.Name, &now)
	return &r, err
}

func never(cluster string) *routepb.Route {
	present := &routepb.HeaderMatcher{Name: aheadHeader, HeaderMatchSpecifier: &routepb.HeaderMatcher_PresentMatch{PresentMatch: true}}
	absent := proto.CloneOf(present)
	absent.InvertMatch = true
	return &routepb.Route{
		Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: "/"}, Headers: []*routepb.HeaderMatcher{present, absent}},
		Action: &routepb.Route_Route{Route: &routepb.RouteAction{
			ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: cluster}}},
	}
}

// clustersOf are the clusters that a table names, each once.
func clustersOf(table *routepb.RouteConfiguration) []string {
	var all []string
	for _, v := range table.VirtualHosts {
		for _, r := range v.Routes {
			if name := r.GetRoute().GetCluster(); name != "" {
				all = append(all, name)
			}
			for _, c := range r.GetRoute().GetWeightedClusters().GetClusters() {
				all = append(all, c.GetName())
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// has reports whether the program has taken a cluster, and its endpoints.
func (c *conn) has(cluster string) bool {
	t := c.taken(wellknown.ClusterType, cluster)
	if t == nil {
		return false
	}
	if b := c.watches[wellknown.ClusterType].bodies[cluster]; b != nil && b.sent != nil { // kept where responses hold the whole set, as gRPC asks for them
		var m clusterpb.Cluster
		if err := b.sent.Body.UnmarshalTo(&m); err != nil || m.GetType() != clusterpb.Cluster_EDS {
			return err == nil
		}
	}
	return c.taken(wellknown.EndpointType, cluster) != nil
}

// taken is what is known of a resource that the program asks for and has acknowledged.
func (c *conn) taken(url, name string) *told {
	w := c.watches[url]
	if w == nil || !w.names[name] || w.told[name] == nil || w.told[name].good == absent {
		return nil
	}
	return w.told[name]
}
