package jwtauthn

import (
	"strings"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// counters are "http.<prefix>.jwt_authn.[<stat_prefix>.]…".
type counters struct {
	allowed, denied, bypassed *stats.Counter
	fetched, fetchFailed      *stats.Counter
	cacheHit, cacheMiss       *stats.Counter
}

func newCounters(sc *stats.Scope, prefix string) *counters {
	if prefix != "" && !strings.HasSuffix(prefix, ".") {
		prefix += "."
	}
	c := func(name string) *stats.Counter { return sc.Counter("jwt_authn." + prefix + name) }
	return &counters{
		allowed: c("allowed"), denied: c("denied"), bypassed: c("cors_preflight_bypassed"),
		fetched: c("jwks_fetch_success"), fetchFailed: c("jwks_fetch_failed"),
		cacheHit: c("jwt_cache_hit"), cacheMiss: c("jwt_cache_miss"),
	}
}
