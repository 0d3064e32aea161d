package router

import "github.com/lateen-mesh/lateen/proxy/stats"

// counters are the router's stats below "http.<prefix>.".
type counters struct {
	badLocation, unsafeScheme, tooManyRedirects, noRoute302, predicate *stats.Counter // redirects left to the client

	total, noRoute, noCluster, redirect, direct, shadowed *stats.Counter
}

func newCounters(scope *stats.Scope) counters {
	return counters{
		total: scope.Counter("rq_total"), noRoute: scope.Counter("no_route"), noCluster: scope.Counter("no_cluster"),
		badLocation: scope.Counter("passthrough_internal_redirect_bad_location"), unsafeScheme: scope.Counter("passthrough_internal_redirect_unsafe_scheme"),
		tooManyRedirects: scope.Counter("passthrough_internal_redirect_too_many_redirects"),
		noRoute302:       scope.Counter("passthrough_internal_redirect_no_route"), predicate: scope.Counter("passthrough_internal_redirect_predicate"),
		redirect: scope.Counter("rq_redirect"), direct: scope.Counter("rq_direct_response"), shadowed: scope.Counter("rq_shadowed"),
	}
}
