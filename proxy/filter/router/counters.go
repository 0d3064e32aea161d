package router

import "github.com/lateen-mesh/lateen/proxy/stats"

// counters are the router's stats below "http.<prefix>.".
type counters struct {
	total, noRoute, noCluster, redirect, direct, shadowed *stats.Counter
}

func newCounters(scope *stats.Scope) counters {
	return counters{
		total: scope.Counter("rq_total"), noRoute: scope.Counter("no_route"), noCluster: scope.Counter("no_cluster"),
		redirect: scope.Counter("rq_redirect"), direct: scope.Counter("rq_direct_response"), shadowed: scope.Counter("rq_shadowed"),
	}
}
